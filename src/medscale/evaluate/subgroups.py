"""Metrics of a run in subgroups of the test images: age bands, sex, view, source set."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from medscale.config.sections import Evaluate
from medscale.data.metadata import word
from medscale.evaluate import metrics
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
        images, groups``, ``classes`` (codes of the classes that averages over classes are over,
        as a JSON list), ``metric``, and ``mean`` (over seeds) with ``low, high`` (over
        patients). Mean and interval are NaN in subgroups of fewer than ``settings.smallest``
        images. Columns that the index lacks, or that have one value for all images, are left out.
    """
    lines = _rows(predictions, "all", "all images", predictions.class_mask, all_image_metrics)
    for by, name, mask in parts(rows, settings):
        part, resample_values = predictions.part(mask), None
        if mask.sum() >= settings.smallest:
            resample_values = metrics.resamples(
                part, draw_counts, predictions.class_mask, complete=False
            )
        lines += _rows(part, by, name, predictions.class_mask, resample_values)
    return pd.DataFrame(lines)


def parts(rows: pd.DataFrame, settings: Evaluate) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield column, name and images (bool, shape N) of each subgroup of ``rows``.

    Age bands ascend, other subgroups are sorted by name, and unknown values come last. Ages that
    are words, such as 90+ among numbers, make no bands. Whole numbers have no decimal point, as in
    ``split.held_out``. Columns that the index lacks, or that have one value for all images, are
    left out.
    """
    for by in (name for name in settings.subgroups if name in rows):
        column = rows[by].astype("object").map(word)
        names = sorted(set(column[rows[by].notna()]) - {UNKNOWN})
        if by == "age" and is_numeric_dtype(rows[by]):
            ends = [-np.inf, *settings.age_bands, np.inf]
            names = [_band(low, high) for low, high in pairwise(ends)]
            column = pd.cut(rows[by].astype("float64"), ends, right=False, labels=names)
        values = column.astype("object").where(rows[by].notna(), UNKNOWN)
        masks = {name: (values == name).to_numpy(bool) for name in [*names, UNKNOWN]}
        present = {name: mask for name, mask in masks.items() if mask.any()}
        if len(present) > 1:
            yield from ((by, name, mask) for name, mask in present.items())


def _rows(
    part: Predictions,
    by: str,
    name: str,
    class_mask: np.ndarray,
    resample_values: Sequence[ResampleMetrics] | None,
) -> list[dict[str, object]]:
    """Return the rows of a subgroup; ``resample_values``: None for too few images."""
    codes = [int(code) for code in np.unique(part.labels) if class_mask[code]]
    head = {"by": by, "part": name, "images": len(part.ids), "groups": len(np.unique(part.groups))}
    head["classes"] = json.dumps(codes)
    if resample_values is None:
        undefined = dict.fromkeys(("mean", "low", "high"), np.nan)
        return [head | {"metric": metric} | undefined for metric in METRICS]
    points, rows = metrics.points(part, class_mask), []
    overall = [values.overall for values in resample_values]
    for metric in METRICS:
        low, high = metrics.interval(metric, part, points, overall, class_mask)
        mean = float(np.mean([values[metric] for values in points]))
        rows.append(head | {"metric": metric, "mean": mean, "low": low, "high": high})
    return rows


def _band(low: float, high: float) -> str:
    """Return the name of an age band in years, such as "40 to below 60"."""
    if np.isinf(low):
        return "known" if np.isinf(high) else f"below {high:g}"
    return f"{low:g} and over" if np.isinf(high) else f"{low:g} to below {high:g}"
