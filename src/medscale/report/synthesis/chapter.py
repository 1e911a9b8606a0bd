"""Declaration of the chapter synthesis: speed and accuracy of all runs of all studies together."""

from collections.abc import Sequence
from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import Chapter, Inputs

TABLES = ("timing", "tests", "parity", "cost", "reported")  # of each study, read as CSV
DATA = "Each study's images, patients, split, network, batch and number of replicates."
RUNS = (
    "Every run of every study that is compared with another: speedup and efficiency against the "
    "serial run on the same kind of device, and the difference in accuracy from the study's "
    "baseline with its paired 95 % interval."
)


def inputs(config: Config, study: str) -> Inputs:
    """Return the results, tables and audits of the studies to carry out."""
    results = [f for name in config.active for f in sources.classifications(config, name)]
    variants = [name for name in config.active if sources.settings_variants(config, name)]
    return {
        "results": results,
        "audits": [sources.audit(name) for name in config.active],
        "tables": [f"tables/{name}/{table}.csv" for name in config.active for table in TABLES],
        "variants": [f"tables/{name}/variants.csv" for name in variants],
        "indexes": [sources.index(name) for name in _of_splits(config, variants)],
        "reported": sources.REPORTED,
    }


def _of_splits(config: Config, studies: Sequence[str]) -> list[str]:
    """Return the studies that have another split as a variant, and these variants."""
    names = []
    for study in studies:
        splits = [
            variant
            for variant in sources.settings_variants(config, study)
            if config.study(variant).split.mode != config.study(study).split.mode
        ]
        names += [study, *splits] if splits else []
    return names


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return title, baseline, margin and split of each study, and the currency."""
    sections = {}
    for name in config.active:
        section = config.study(name)
        sections[name] = {
            "title": section.title,
            "baseline": section.baseline,
            "margin": section.evaluate.margin,
            "split": section.split.mode,
            "personal": section.source.kind == sources.PERSONAL,
            "variants": {
                variant: {
                    "title": config.study(variant).title,
                    "split": config.study(variant).split.mode,
                }
                for variant in sources.settings_variants(config, name)
            },
        }
    return {"studies": sections, "currency": config.cost.currency}


CHAPTER = Chapter(
    "synthesis",
    inputs,
    settings,
    figures={
        "how_far": "Speedup against devices, a panel for each study: measured (filled), published "
        "(hollow), ideal (dotted), and the laws that were fitted.",
        "at_what_cost": "Difference in accuracy from the baseline, with its paired 95 % interval, "
        "against speedup: every run of every study.",
        "why": "Shares of an epoch's time by activity, for every run of every study.",
        "what_to_buy": "Time and money until the target of each study. Where a marker is filled, "
        "no other run of the study is both faster and cheaper.",
    },
    tables={"studies": DATA, "verdicts": RUNS},
    facts="synthesis",
    spans_studies=True,
)
