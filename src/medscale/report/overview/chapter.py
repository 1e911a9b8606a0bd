"""Declaration of the chapter overview: data, accuracy and time of a study's classification runs."""

from medscale.config.configuration import Config
from medscale.data.kind import kind_file
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the files that the chapter is made from."""
    return {
        "index": sources.index(study),
        "audit": f"data/{study}/audit.csv",
        "counts": sources.audit(study),
        "results": sources.classifications(config, study),
        "reference": sources.reference(study),
        "reported": sources.reported(config, study),
        "kind": kind_file(config.study(study).source.kind),
    }


CHAPTER = Chapter(
    "overview",
    inputs,
    sources.section,
    lists_chapters=True,
    figures={
        "audit": "Files of *{study}* found, used and left out by reason; images used by class and "
        "split. ``data/{study}/audit.csv`` names each file that was left out.",
        "curves": "Training loss, validation loss and validation accuracy by epoch and run of "
        "*{study}*. Bands are ranges over replicates.",
        "accuracy": "Accuracy and AUROC of each run of *{study}* on the test images: markers are "
        "means over seeds, bars 95 % bootstrap intervals, ticks single seeds; and "
        "the difference in accuracy from the baseline with its paired interval.",
        "roc": "ROC curves of each run of *{study}* on the test images. Thick: mean over seeds; "
        "thin: each seed.",
        "confusion": "Confusion of the classes of *{study}* on the test images over all seeds, in "
        "percent of the true class.",
        "speedup": "Speedup of *{study}* against devices: seconds an epoch of the serial run on "
        "one device of the same kind, divided by those of the run. Both axes are logarithmic; "
        "bars are ranges over pairs of replicates.",
        "time": "Seconds of an epoch of *{study}* by activity of the first process: mean over "
        "epochs without the first, and over replicates.",
    },
    tables=dict.fromkeys(
        ("data", "audit", "results", "parity", "per_class", "timing", "reported"), TABLE
    ),
    unprinted=("parity", "timing"),
    facts="facts",
)
