"""How well a run does in parts of the test images: age bands, sex, view, source set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from medscale.config.sections import Evaluate
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.bootstrap import Resampled
from medscale.evaluate.replicates import Predicted

METRICS = ("accuracy", "balanced_accuracy", "auroc")
UNKNOWN = "unknown"


def subgroups(
    predicted: Predicted,
    rows: pd.DataFrame,
    settings: Evaluate,
    drawn: np.ndarray,
    whole: Sequence[Resampled],
) -> pd.DataFrame:
    """Metrics in each part of the images.

    Args:
        predicted: the test split.
        rows: the index's rows of the same images in the same order.
        settings: which columns, the limits of age bands, and how many images a part needs.
        drawn: resamples of the split's groups, from ``bootstrap.draw``.
        whole: the metrics of all images on them, by replicate.

    Returns:
        A row a part and metric: ``by, part, images, groups, metric, mean, low, high`` (mean over seeds, interval over
        patients); mean and interval are NaN in parts of fewer than ``settings.smallest`` images. Columns that the index
        has not, or that are the same for all images, are left out. ``by`` is "all" for all images.
    """
    parts = []
    for name in settings.subgroups:
        if name in rows:
            values = _bands(rows[name], settings.age_bands) if name == "age" else _words(rows[name])
            parts += [
                (name, part, values == part) for part in _order(values) if values.nunique() > 1
            ]
    everything = np.ones(len(rows), bool)
    found = _rows(predicted, ("all", "all images"), everything, [one.overall for one in whole])
    for by, part, of in parts:
        here = np.asarray(of)
        found += _rows(
            predicted, (by, part), here, _resampled(predicted, here, drawn, settings.smallest)
        )
    return pd.DataFrame(found)


def _resampled(
    predicted: Predicted, here: np.ndarray, drawn: np.ndarray, smallest: int
) -> list[dict[str, np.ndarray]] | None:
    """The metrics of the images ``here`` on each resample, by replicate; None: there are too few of them."""
    if here.sum() < smallest:
        return None
    labels, groups = predicted.labels[here], predicted.groups[here]
    with np.errstate(invalid="ignore"):  # a resample without any image of the part is undefined
        return [
            bootstrap.resample(labels, odds[here], groups, drawn, micro=False).overall
            for odds in predicted.probabilities
        ]


def _rows(
    predicted: Predicted,
    name: tuple[str, str],
    here: np.ndarray,
    resampled: list[dict[str, np.ndarray]] | None,
) -> list[dict[str, object]]:
    head = {"by": name[0], "part": name[1], "images": int(here.sum())}
    head["groups"] = len(np.unique(predicted.groups[here]))
    if resampled is None:
        return [
            head | {"metric": metric, "mean": np.nan, "low": np.nan, "high": np.nan}
            for metric in METRICS
        ]
    points = [metrics.point(predicted.labels[here], odds[here]) for odds in predicted.probabilities]
    rows = []
    for metric in METRICS:
        low, high = bootstrap.interval(np.mean([one[metric] for one in resampled], axis=0))
        mean = float(np.mean([one[metric] for one in points]))
        rows.append(head | {"metric": metric, "mean": mean, "low": low, "high": high})
    return rows


def _words(column: pd.Series) -> pd.Series:
    return column.astype("str").where(column.notna(), UNKNOWN)


def _bands(ages: pd.Series, limits: Sequence[float]) -> pd.Series:
    """Ages as bands such as "40-59": from a limit to below the next."""
    ends = [-np.inf, *sorted(limits), np.inf]
    names = [_band(low, high) for low, high in pairwise(ends)]
    cut = pd.cut(ages.astype("float64"), ends, right=False, labels=names).astype("object")
    return cut.where(ages.notna(), UNKNOWN)


def _band(low: float, high: float) -> str:
    if np.isinf(low):
        return f"below {high:g}"
    return f"{low:g} and over" if np.isinf(high) else f"{low:g} to below {high:g}"


def _order(values: pd.Series) -> list[str]:
    """Parts in alphabetical order, "below" first, what is unknown last."""
    return sorted(
        values.unique(), key=lambda part: (part == UNKNOWN, not part.startswith("below"), part)
    )
