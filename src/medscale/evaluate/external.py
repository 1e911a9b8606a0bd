"""External validation: scores on images of another origin, compared with the test split's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medscale.data.split import SPLITS
from medscale.evaluate import bootstrap
from medscale.evaluate.assessment import PAIRED_METRICS, SEED, Assessment, ValidationFit
from medscale.evaluate.operating import LIMIT

# Beginnings of the names of metrics that are averages over classes with equal weights.
AVERAGES = ("balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", *bootstrap.AREAS)


def validation_fit(summary: Mapping[str, Any], operating: pd.DataFrame) -> ValidationFit:
    """Return the temperatures and thresholds of a result folder, from its validation split.

    Args:
        summary: content of summary.json.
        operating: operating.csv.
    """
    temperatures = summary["calibration"]["temperatures"]
    columns = [str(name) for name in operating if str(name).startswith(LIMIT)]
    return ValidationFit(
        [np.nan if value is None else float(value) for value in temperatures],
        operating[["class", "wanted", "threshold", *columns]],
    )


def shift(summary: Mapping[str, Any], resamples: pd.DataFrame, outside: Assessment) -> pd.DataFrame:
    """Compare the metrics of the test split (inside) with those of external images (outside).

    The two sets are taken to have different patients (``same_patients`` counts those of the same
    name), so their resamples are independent.

    Args:
        summary: content of the result's summary.json, with the scores of the test split.
        resamples: resamples.csv of the result.
        outside: assessment of the external images.

    Returns:
        One row for each metric: ``metric``, and ``inside, outside, difference`` (outside minus
        inside), each with ``_low`` and ``_high``. The interval of the difference is NaN for
        metrics without resamples in the result, and where no resample differs. The difference of an
        average over classes is NaN if the two averages are over different classes, such as where a
        class has no image outside.
    """
    same_classes = set(summary.get("not_averaged", [])) == set(outside.not_averaged)
    order = np.random.default_rng(SEED).permutation(len(resamples))
    rows = []
    for row in outside.scores.to_dict("records"):
        name = str(row["metric"])
        score = summary["metrics"]["test"].get(name)
        if score is None:
            continue
        ends = {"": "mean", "_low": "low", "_high": "high"}
        line: dict[str, Any] = {"metric": name}
        for side, values in (("inside", score), ("outside", row)):
            for ending, key in ends.items():
                value = values[key]
                line[f"{side}{ending}"] = np.nan if value is None else float(value)
        comparable = same_classes or not name.startswith(AVERAGES)
        line["difference"] = line["outside"] - line["inside"] if comparable else np.nan
        low, high = np.nan, np.nan
        if comparable and name in PAIRED_METRICS:
            count = min(len(resamples), len(outside.resamples))
            inside = resamples[name].to_numpy(np.float64)[order[:count]]
            changes = outside.resamples[name].to_numpy()[:count] - inside
            low, high = bootstrap.spread_interval(changes)
        rows.append(line | {"difference_low": low, "difference_high": high})
    return pd.DataFrame(rows)


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
