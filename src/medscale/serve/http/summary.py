"""Scores and operating points of a model, from the summary.json of its result folder.

The folder may be a stranger's: each value is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.files import read_foreign_json
from medscale.base.paths import SUMMARY
from medscale.serve.bundle import Inference, Weights
from medscale.serve.http.answers import OperatingPoint, Rate, Score

SCORES = {
    "classification": {"accuracy": "accuracy", "auroc": "AUROC"},
    "detection": {"map50": "mAP50"},
}


def read(
    folder: Path, inference: Inference, weights: Sequence[Weights]
) -> tuple[list[Score], list[OperatingPoint]]:
    """Return scores and operating points on the test images; both are empty without a summary.

    Raises MedscaleError when the summary is not as ``evaluate`` writes it.

    Args:
        folder: the result folder.
        inference: the content of its inference.json.
        weights: the replicates in use; a mean of several has no operating points.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return [], []
    try:
        summary = read_foreign_json(path)
        return _scores(summary, inference), _operating(summary, inference, weights)
    except (LookupError, TypeError, AttributeError, ValidationError) as error:
        reason = type(error).__name__
        raise MedscaleError(f"{path} does not have the metrics of a result ({reason})") from None


def _scores(summary: Any, inference: Inference) -> list[Score]:
    test = summary["metrics"]["test"]
    return [
        Score(name=name, mean=test[key]["mean"], low=test[key]["low"], high=test[key]["high"])
        for key, name in SCORES[inference.task].items()
        if key in test and test[key]["mean"] is not None
    ]


def _operating(
    summary: Any, inference: Inference, weights: Sequence[Weights]
) -> list[OperatingPoint]:
    """Return the operating points whose rates are defined, with the replicate's thresholds."""
    if len(weights) > 1:
        return []
    number = inference.replicates.index(weights[0]) + 1
    points = []
    for row in summary.get("operating", []):
        threshold = row[f"threshold_{number}"]
        if row["class"] not in inference.classes:
            raise LookupError(row["class"])
        if None in (threshold, row["sensitivity"], row["specificity"]):
            continue  # without validation images or test images of one side
        point = OperatingPoint(
            label=row["class"],
            validation_specificity=row["wanted"],
            threshold=threshold,
            sensitivity=_rate(row, "sensitivity", row["positives"]),
            specificity=_rate(row, "specificity", row["negatives"]),
            replicates=len(inference.replicates),
        )
        points.append(point)
    return points


def _rate(row: Any, name: str, images: int) -> Rate:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return Rate(value=row[name], low=low, high=high, images=images)
