"""Metrics of a run in subgroups of the test images: age bands, sex, view, source set."""

from collections.abc import Iterator, Sequence
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
    """Compute metrics in each subgroup of the test images.

    Args:
        rows: the index's rows of the same images in the same order.
        settings: columns, limits of age bands in years, smallest number of images of a subgroup.
        drawn: resamples of the split's groups, from ``bootstrap.draw``, shape R,G.
        whole: the metrics of all images on these resamples, by replicate.

    Returns:
        A row for each subgroup and metric: ``by, part, images, groups, metric, mean, low, high``
        (mean over seeds, interval over patients); mean and interval are NaN in subgroups of fewer
        than ``settings.smallest`` images. ``by`` is the column, or "all" for all images. Leaves
        out columns that the index does not have or that are the same for all images.
    """
    everything = np.ones(len(rows), bool)
    lines = _rows(predicted, ("all", "all images"), everything, [r.overall for r in whole])
    for by, part, mask in parts(rows, settings):
        resampled = _resampled(predicted, mask, drawn, settings.smallest)
        lines += _rows(predicted, (by, part), mask, resampled)
    return pd.DataFrame(lines)


def parts(rows: pd.DataFrame, settings: Evaluate) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield column, name and images (bool, shape N) of each subgroup of ``rows``.

    Leaves out columns that the index does not have or that are the same for all images.
    """
    for name in settings.subgroups:
        if name in rows:
            values = _bands(rows[name], settings.age_bands) if name == "age" else _words(rows[name])
            if values.nunique() > 1:
                yield from ((name, part, np.asarray(values == part)) for part in _order(values))


def _resampled(
    predicted: Predicted, mask: np.ndarray, drawn: np.ndarray, smallest: int
) -> list[dict[str, np.ndarray]] | None:
    """Return the metrics of some images on each resample, by replicate; None for too few images."""
    if mask.sum() < smallest:
        return None
    labels, groups = predicted.labels[mask], predicted.groups[mask]
    averaged = _averaged(predicted)
    with np.errstate(invalid="ignore"):  # undefined in a resample without images of the subgroup
        return [
            bootstrap.resample(
                labels, odds[mask], groups, drawn, complete=False, averaged=averaged
            ).overall
            for odds in predicted.probabilities
        ]


def _averaged(predicted: Predicted) -> np.ndarray:
    """Return the classes that take part in averages, those of the whole split."""
    classes = predicted.probabilities.shape[2]
    return bootstrap.averaged_classes(predicted.labels, predicted.groups, classes)


def _rows(
    predicted: Predicted,
    name: tuple[str, str],
    mask: np.ndarray,
    resampled: list[dict[str, np.ndarray]] | None,
) -> list[dict[str, object]]:
    head = {"by": name[0], "part": name[1], "images": int(mask.sum())}
    head["groups"] = len(np.unique(predicted.groups[mask]))
    if resampled is None:
        undefined = dict.fromkeys(("mean", "low", "high"), np.nan)
        return [head | {"metric": metric} | undefined for metric in METRICS]
    points = [
        metrics.point(predicted.labels[mask], odds[mask], _averaged(predicted))
        for odds in predicted.probabilities
    ]
    rows = []
    for metric in METRICS:
        low, high = bootstrap.interval(np.mean([values[metric] for values in resampled], axis=0))
        mean = float(np.mean([values[metric] for values in points]))
        rows.append(head | {"metric": metric, "mean": mean, "low": low, "high": high})
    return rows


def _words(column: pd.Series) -> pd.Series:
    return column.astype("str").where(column.notna(), UNKNOWN)


def _bands(ages: pd.Series, limits: Sequence[float]) -> pd.Series:
    """Return the band of each age in years, such as "40 to below 60"."""
    ends = [-np.inf, *sorted(limits), np.inf]
    names = [_band(low, high) for low, high in pairwise(ends)]
    cut = pd.cut(ages.astype("float64"), ends, right=False, labels=names).astype("object")
    return cut.where(ages.notna(), UNKNOWN)


def _band(low: float, high: float) -> str:
    if np.isinf(low):
        return f"below {high:g}"
    return f"{low:g} and over" if np.isinf(high) else f"{low:g} to below {high:g}"


def _order(values: pd.Series) -> list[str]:
    """Sort the subgroups by name, with "below ..." first and unknown values last."""
    return sorted(
        values.unique(), key=lambda part: (part == UNKNOWN, not part.startswith("below"), part)
    )
