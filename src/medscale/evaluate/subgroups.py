"""Metrics of a run in subgroups of the test images: age bands, sex, view, source set."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from medscale.config.sections import Evaluate
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.bootstrap import ResampleMetrics
from medscale.evaluate.replicates import Predictions

METRICS = ("accuracy", "balanced_accuracy", "auroc")
UNKNOWN = "unknown"


def subgroups(
    predictions: Predictions,
    rows: pd.DataFrame,
    settings: Evaluate,
    draw_counts: np.ndarray,
    all_image_metrics: Sequence[ResampleMetrics],
) -> pd.DataFrame:
    """Compute metrics in each subgroup of the test images.

    Args:
        predictions: predictions of the test images.
        rows: rows of the index, of the same images in the same order.
        settings: columns, limits of age bands in years, smallest number of images of a subgroup.
        draw_counts: resamples of the split's groups, from ``bootstrap.draw``, shape R,G.
        all_image_metrics: metrics of all images on these resamples, by replicate.

    Returns:
        One row for each subgroup and metric: ``by`` (the column, or "all" for all images), ``part,
        images, groups, metric``, and ``mean`` (over seeds) with ``low, high`` (over patients). Mean
        and interval are NaN in subgroups of fewer than ``settings.smallest`` images. Columns that
        the index lacks, or that have one value for all images, are left out.
    """
    all_images = np.ones(len(rows), bool)
    lines = _rows(
        predictions, ("all", "all images"), all_images, [r.overall for r in all_image_metrics]
    )
    for by, part, mask in parts(rows, settings):
        resample_values = _resample(predictions, mask, draw_counts, settings.smallest)
        lines += _rows(predictions, (by, part), mask, resample_values)
    return pd.DataFrame(lines)


def parts(rows: pd.DataFrame, settings: Evaluate) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield column, name and images (bool, shape N) of each subgroup of ``rows``.

    Columns that the index lacks, or that have one value for all images, are left out.
    """
    for name in settings.subgroups:
        if name in rows:
            values = _bands(rows[name], settings.age_bands) if name == "age" else _words(rows[name])
            if values.nunique() > 1:
                yield from ((name, part, np.asarray(values == part)) for part in _order(values))


def _resample(
    predictions: Predictions, mask: np.ndarray, draw_counts: np.ndarray, smallest: int
) -> list[dict[str, np.ndarray]] | None:
    """Return the metrics of a subgroup on each resample, by replicate; None for too few images."""
    if mask.sum() < smallest:
        return None
    labels, groups = predictions.labels[mask], predictions.groups[mask]
    with np.errstate(invalid="ignore"):  # undefined in a resample without images of the subgroup
        return [
            bootstrap.resample(
                labels,
                probabilities[mask],
                groups,
                draw_counts,
                complete=False,
                class_mask=predictions.class_mask,
            ).overall
            for probabilities in predictions.probabilities
        ]


def _rows(
    predictions: Predictions,
    name: tuple[str, str],
    mask: np.ndarray,
    resample_values: list[dict[str, np.ndarray]] | None,
) -> list[dict[str, object]]:
    head = {"by": name[0], "part": name[1], "images": int(mask.sum())}
    head["groups"] = len(np.unique(predictions.groups[mask]))
    if resample_values is None:
        undefined = dict.fromkeys(("mean", "low", "high"), np.nan)
        return [head | {"metric": metric} | undefined for metric in METRICS]
    points = [
        metrics.point(predictions.labels[mask], probabilities[mask], predictions.class_mask)
        for probabilities in predictions.probabilities
    ]
    rows = []
    for metric in METRICS:
        low, high = bootstrap.interval(
            np.mean([values[metric] for values in resample_values], axis=0)
        )
        mean = float(np.mean([values[metric] for values in points]))
        rows.append(head | {"metric": metric, "mean": mean, "low": low, "high": high})
    return rows


def _words(column: pd.Series) -> pd.Series:
    return column.astype("str").where(column.notna(), UNKNOWN)


def _bands(ages: pd.Series, limits: Sequence[float]) -> pd.Series:
    """Return the band of each age in years, such as "40 to below 60"."""
    ends = [-np.inf, *sorted(limits), np.inf]
    names = [_band(low, high) for low, high in pairwise(ends)]
    bands = pd.cut(ages.astype("float64"), ends, right=False, labels=names).astype("object")
    return bands.where(ages.notna(), UNKNOWN)


def _band(low: float, high: float) -> str:
    if np.isinf(low):
        return f"below {high:g}"
    return f"{low:g} and over" if np.isinf(high) else f"{low:g} to below {high:g}"


def _order(values: pd.Series) -> list[str]:
    """Sort the subgroups by name, with "below ..." first and unknown values last."""
    return sorted(
        values.unique(), key=lambda part: (part == UNKNOWN, not part.startswith("below"), part)
    )
