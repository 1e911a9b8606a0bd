"""External validation: scores on images of another origin, compared with the test split's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.data.settings import SPLITS
from medscale.evaluate import bootstrap
from medscale.evaluate.assessment import Assessment, ValidationFit
from medscale.evaluate.operating import limit_columns
from medscale.evaluate.verdicts import independent_difference

# Beginnings of the names of metrics that are averages over classes with equal weights.
AVERAGES = ("balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", *bootstrap.AREAS)
ENDS = {"mean": "", "low": "_low", "high": "_high"}  # endings of columns


def validation_fit(summary: Mapping[str, Any], operating: pd.DataFrame) -> ValidationFit:
    """Return the temperatures and thresholds of a result folder, from its validation split.

    Args:
        summary: content of summary.json.
        operating: operating.csv.
    """
    temperatures = summary["calibration"]["temperatures"]
    return ValidationFit(
        [np.nan if value is None else float(value) for value in temperatures],
        operating[["class", "wanted", "threshold", *limit_columns(operating)]],
    )


def shift(summary: Mapping[str, Any], outside: Assessment) -> pd.DataFrame:
    """Compare the metrics of the test split (inside) with those of external images (outside).

    The two sets are taken to have different patients (``same_patients`` counts those of the same
    name), so their scores are independent.

    Args:
        summary: content of the result's summary.json, with the scores of the test split.
        outside: assessment of the external images.

    Returns:
        One row for each metric: ``metric``, and ``inside, outside, difference`` (outside minus
        inside), each with ``_low`` and ``_high``. The difference of an average over classes is NaN
        if the two averages are over different classes, such as where a class has no image outside.
    """
    classes = summary["classes"]
    same_classes = averaged(
        classes, summary["confusion"], summary.get("not_averaged", [])
    ) == averaged(classes, outside.confusion.tolist(), outside.not_averaged)
    rows = []
    for row in outside.scores.to_dict("records"):
        name = str(row["metric"])
        score = summary["metrics"]["test"].get(name)
        if score is None:
            continue
        sides = [
            {end: np.nan if side[end] is None else float(side[end]) for end in ENDS}
            for side in (score, row)
        ]
        difference = dict.fromkeys(ENDS, np.nan)
        if same_classes or not name.startswith(AVERAGES):
            difference = independent_difference(sides[1], sides[0])
        line: dict[str, Any] = {"metric": name}
        for part, values in zip(
            ("inside", "outside", "difference"), [*sides, difference], strict=True
        ):
            line |= {f"{part}{ending}": values[end] for end, ending in ENDS.items()}
        rows.append(line)
    return pd.DataFrame(rows)


def averaged(
    classes: Sequence[str], confusion: Sequence[Sequence[int]], not_averaged: Sequence[str]
) -> set[str]:
    """Return the classes that averages are over: those with an image that none leaves out."""
    present = {name for name, row in zip(classes, confusion, strict=True) if any(row)}
    return present - set(not_averaged)


def copies(digests: pd.Series, training: pd.DataFrame | None) -> dict[str, int] | None:
    """Count the external images whose files are equal, byte by byte, to images of the study.

    Args:
        digests: SHA-256 of the external images (column ``sha256`` of their index).
        training: index of the study; None if it is not available.

    Returns:
        Number of copies by split of the study; None if its index is not available.
    """
    return None if training is None else _shared(digests, training, "sha256")


def same_patients(names: pd.Series, training: pd.DataFrame | None) -> dict[str, int] | None:
    """Count the external images whose patient has the name of a patient of the study.

    These are the same people if one table or one hospital names both, and not if each hospital
    counts its patients from 1.

    Args:
        names: patients of the external images (column ``patient`` of their index).
        training: index of the study; None if it is not available.

    Returns:
        Number of images by split of the study; None if its index is not available, or if either
        set has no known patient.
    """
    if training is None or names.isna().all() or training["patient"].isna().all():
        return None
    return _shared(names, training, "patient")


def _shared(values: pd.Series, training: pd.DataFrame, column: str) -> dict[str, int]:
    rows = training.dropna(subset=[column])
    return {
        split: int(values.isin(set(rows.loc[rows["split"] == split, column])).sum())
        for split in SPLITS
    }
