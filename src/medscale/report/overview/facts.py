"""Facts of the overview: a study's settings, data, accuracies and speedups."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.config.sections import Study
from medscale.data.inventory import NO_FILE
from medscale.data.kind import load_kind
from medscale.data.leaks import shared_with_training
from medscale.data.settings import SPLITS
from medscale.engine.resolve import AUTO
from medscale.engine.run import RunSpec
from medscale.report.marks import formats, marks_of
from medscale.report.names import GROUPS, OVER, label
from medscale.report.overview.linear import Linear
from medscale.report.overview.linear import facts as linear_facts
from medscale.report.result.reading import Result, records
from medscale.report.sources import PERSONAL
from medscale.report.units import unit_of_files

SECTIONS = ("split", "preprocess", "augment", "model", "recipe", "detect")
SCORE = ("mean", "low", "high")


def facts(
    name: str,
    settings: Study,
    results: Sequence[Result],
    linear: Linear,
    speedups: pd.DataFrame,
    images: pd.DataFrame,
    counts: pd.DataFrame,
    audit: dict[str, Any],
    reported: pd.DataFrame,
    chapters: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the facts of a study for the paper; scores are fractions from 0 to 1, not rounded.

    Args:
        linear: the linear reference.
        speedups: times and speedups by run, of ``medscale.measure.scaling.speedups``.
        images: the index: columns ``split`` and ``group``.
        counts: images by class (rows) and split (columns).
        reported: published figures with ours; may be empty.
    """
    sections = settings.model_dump(mode="json", include=set(SECTIONS))
    return (
        sections
        | _decided(settings, results)
        | _of_study(settings, results)
        | _of_data(audit, images, counts, results[0].summary)
        | {"division": _division(counts, settings.split.folds)}
        | _of_runs(settings, results, linear_facts(results, linear), speedups)
        | {"name": name, "chapters": list(chapters), "reported": not reported.empty}
    )


def _of_study(settings: Study, results: Sequence[Result]) -> dict[str, Any]:
    """Return titles, classes and dataset."""
    return {
        "title": settings.title,
        "classes": results[0].classes,
        "class_titles": settings.class_titles,
        "dataset": load_kind(settings.source.kind).paper,
        "personal": settings.source.kind == PERSONAL,
        "dataset_name": settings.datasheet.name,
        "synthetic": settings.source.synthetic,
        "formats_epochs": getattr(settings.benchmarks.formats, "epochs", None),
    }


def _of_data(
    audit: dict[str, Any], images: pd.DataFrame, counts: pd.DataFrame, summary: dict[str, Any]
) -> dict[str, Any]:
    """Return numbers of files, images and groups; ``summary`` is that of any result."""
    patients = audit["patients"]["state"]
    return {
        "files": {
            "found": audit["found"],
            "unit": unit_of_files(audit),
            "used": audit["used"],
            "missing": audit["by_reason"].get(NO_FILE, 0),
        },
        "notes": [str(note) for note in audit.get("notes", [])],
        "test_in_training": shared_with_training(images, "group"),
        "images": {str(split): int(number) for split, number in counts.sum().items()},
        "patients": patients,
        "over": OVER[patients],
        "groups": GROUPS[patients],
        "not_averaged": summary.get("not_averaged", []),
        "test_images": summary["counts"]["test"]["images"],  # with folds, those of all folds
        "test_groups": summary["counts"]["test"]["groups"],
    }


def _division(counts: pd.DataFrame, folds: int | None) -> str:
    """Return the numbers of training, validation and test images in words."""
    sizes = " / ".join(str(int(counts[split].sum())) for split in SPLITS)
    if folds is None:
        return f"{sizes} images"
    return f"{folds} folds, each of which is the test split once; in the first, {sizes} images"


def _of_runs(
    settings: Study,
    results: Sequence[Result],
    linear_scores: dict[str, Any],
    speedups: pd.DataFrame,
) -> dict[str, Any]:
    """Return seeds, networks, number formats, accuracies and times of the runs."""
    summaries = [result.summary for result in results]
    return {
        "networks": _networks(results),
        "seeds": summaries[0]["seeds"],
        "repeated": len(summaries[0]["seeds"]) > 1,
        "replicates": len(summaries[0]["replicates"]),  # with folds more than seeds
        "baseline": _baseline(results, settings.baseline)
        | {"linear": _against_linear(linear_scores, settings.baseline)},
        "runs": [_run(result) for result in results],
        "formats": formats(marks_of(summary) for summary in summaries),
        "linear": linear_scores,
        "collapsed": [label(result.name) for result in results if result.collapsed],
        "hardware": sorted(set(speedups["hardware"])),
        "no_baseline": speedups.loc[speedups["baseline"] == "", "run"].map(label).tolist(),
        "speedup_notes": _notes(speedups),
        "communication_measured": all(
            summary["timing"]["communication_measured"] for summary in summaries
        ),
    }


def _decided(settings: Study, results: Sequence[Result]) -> dict[str, Any]:
    """Return network and recipe as the baseline was trained, if the study leaves some open."""
    recipe = settings.recipe
    is_open = AUTO in (recipe.class_weights, settings.model.options.get("dropout"))
    if not is_open and recipe.steps is None:
        return {}
    summary = next(r.summary for r in results if r.name == settings.baseline)
    return {"model": summary["model"], "recipe": summary["recipe"]}


def _run(result: Result) -> dict[str, Any]:
    """Return a run's name in words, its devices and format, and its accuracy."""
    spec = RunSpec.parse(result.name)
    return {
        "label": label(result.name),
        "strategies": [spec.strategy, *(["mp"] if spec.mp else [])],
        "device": spec.device,
        "devices": spec.devices,
        "amp": spec.amp,
        "format": result.summary["format"],
        "stand_in": result.summary["marks"]["stand_in"],
        "accuracy": result.score("accuracy")["mean"],
    }


def _networks(results: Sequence[Result]) -> list[str]:
    """Return the networks that runs name in place of the study's, each once."""
    networks = dict.fromkeys(RunSpec.parse(result.name).model for result in results)
    return [network for network in networks if network]


def _baseline(results: Sequence[Result], name: str) -> dict[str, Any]:
    """Return the scores of the baseline's test images; of two classes, also by class."""
    result = next(result for result in results if result.name == name)
    words = f"{label(name)}, {result.summary['format']}"
    facts = {"label": words, "scores": result.summary["metrics"]["test"]}
    if len(result.classes) == 2:  # recall of the negative, then of the positive class
        recall = records(result.per_class[result.per_class["metric"] == "recall"])
        for key, row in zip(("specificity", "sensitivity"), recall, strict=True):
            facts[key] = {column: row[column] for column in SCORE}
    return facts


def _against_linear(linear_scores: dict[str, Any], baseline: str) -> str:
    """Return whether the baseline is better than the linear reference: better, not_better, worse.

    By the interval of the difference in AUROC.
    """
    for words in ("worse", "not_better"):
        if label(baseline) in [run["label"] for run in linear_scores[words]]:
            return words
    return "better"


def _notes(speedups: pd.DataFrame) -> list[dict[str, Any]]:
    """Return each remark on comparisons of times once, with the runs that it is about."""
    noted = speedups[speedups["note"] != ""].groupby("note", sort=False)["run"]
    return [{"note": str(note), "runs": [label(run) for run in runs]} for note, runs in noted]
