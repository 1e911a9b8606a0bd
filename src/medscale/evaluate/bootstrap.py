"""Bootstrap over patients: every metric on every resample at once, as weighted counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array

from medscale.evaluate import calibration
from medscale.evaluate.metrics import AREAS, headline

LEVEL = 0.95
CELLS = 500_000  # weights held at once: 4 MB, so that they stay in the cache


class Resampled(NamedTuple):
    """Metrics of all resamples: by metric shape R, by class and metric shape R,K."""

    overall: dict[str, np.ndarray]
    by_class: dict[str, np.ndarray]


def draw(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of ``groups`` patients is drawn in each resample, int64, shape R,G (Efron & Tibshirani 1993).

    Whole groups are drawn with replacement, since images of one patient are not independent (cluster bootstrap,
    Field & Welsh 2007).
    """
    return np.random.default_rng(seed).multinomial(
        groups, np.full(groups, 1 / groups), size=resamples
    )


def resample(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    drawn: np.ndarray,
    *,
    micro: bool = True,
) -> Resampled:
    """All metrics of ``medscale.evaluate.metrics`` on every resample.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.
        groups: group code of each image, shape N.
        drawn: from ``draw``, shape R,G.
        micro: with the micro averages of the areas, which of many classes take as long as all else.

    Returns:
        Values as ``metrics.point`` and ``metrics.per_class`` would give for the resampled images.
    """
    classes = probabilities.shape[1]
    counts = _confusions(labels, probabilities.argmax(axis=1), groups, drawn, classes)
    overall, by_class = _from_confusions(counts)
    one_against_rest = [
        _areas(labels == c, probabilities[:, c], groups, drawn) for c in range(classes)
    ]
    for name, values in zip(AREAS, np.stack(one_against_rest, axis=2), strict=True):
        by_class[name] = values
        overall[name] = headline(values)
    if classes > 2 and micro:
        truth = np.eye(classes, dtype=bool)[labels].ravel()
        areas = _areas(truth, probabilities.ravel(), np.repeat(groups, classes), drawn)
        overall |= {f"{name}_micro": values for name, values in zip(AREAS, areas, strict=True)}
    return Resampled(overall | calibration.resample(labels, probabilities, groups, drawn), by_class)


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval over resamples; those where the metric is undefined are left out, NaN if all are."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _confusions(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, drawn: np.ndarray, classes: int
) -> np.ndarray:
    """Confusion matrices (rows: truth) of all resamples, float64, shape R,K,K."""
    shape = (drawn.shape[1], classes * classes)
    cells = coo_array(
        (np.ones(len(labels)), (groups, labels * classes + predicted)), shape=shape
    ).tocsr()
    return (cells.T @ drawn.T.astype(np.float64)).T.reshape(len(drawn), classes, classes)


def _from_confusions(counts: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    hits = np.einsum("rkk->rk", counts)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    total = true.sum(axis=1)
    precision, recall = _ratio(hits, predicted), _ratio(hits, true)
    f1 = _ratio(2 * hits, true + predicted)
    weights = {"macro": ((true + predicted) > 0).astype(np.float64), "weighted": true}
    overall = {
        "accuracy": hits.sum(axis=1) / total,
        "balanced_accuracy": _average(recall, (true > 0).astype(np.float64)),
    }
    by_class = {"precision": precision, "recall": recall, "f1": f1}
    for average, weight in weights.items():
        overall |= {
            f"{name}_{average}": _average(values, weight) for name, values in by_class.items()
        }
    for name in ("recall", "f1"):
        by_class[name] = np.where(true > 0, by_class[name], np.nan)
    return overall, by_class


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (values * weights).sum(axis=1) / weights.sum(axis=1)


def _areas(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """AUROC and average precision of all resamples, shape 2,R.

    AUROC is the Mann-Whitney statistic with ties counted half. Average precision is the mean over positive images of
    the precision among the images that score as high or higher.
    """
    order = np.argsort(scores, kind="stable")
    ordered, positive, groups = scores[order], positive[order], groups[order]
    first = np.searchsorted(ordered, ordered[positive], side="left")
    last = np.searchsorted(ordered, ordered[positive], side="right")
    better = np.searchsorted(first, first, side="left")
    step = max(1, CELLS // len(order))
    blocks = (drawn[start : start + step].T[groups] for start in range(0, len(drawn), step))
    return np.concatenate(
        [_block(weights, positive, first, last, better) for weights in blocks], axis=1
    )


def _block(
    weights: np.ndarray,
    positive: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    better: np.ndarray,
) -> np.ndarray:
    """Both areas of some resamples, shape 2,r.

    Args:
        weights: how often each image is drawn, by ascending score, int64, shape N,r; it is overwritten.
        positive: which images are of the class, bool, shape N.
        first, last: for each positive image, how many images have a smaller, and a smaller or equal score.
        better: for each positive image, how many positive images have a smaller score.
    """
    above = weights[positive]
    weights[positive] = 0
    below = np.concatenate([np.zeros_like(weights[:1]), np.cumsum(weights, axis=0)])
    smaller = below[first]
    wins = (above * (smaller + below[last])).sum(axis=0) / 2
    found, negatives = above.sum(axis=0), below[-1]
    pairs = (found * negatives).astype(np.float64)
    hits = np.concatenate([np.zeros_like(above[:1]), np.cumsum(above, axis=0)])
    hits = found - hits[better]  # positive images that score as high or higher
    kept = hits + (negatives - smaller)
    precision = np.divide(hits, kept, out=np.zeros(kept.shape), where=kept > 0)
    defined = pairs > 0
    auroc = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=defined)
    average = np.divide(
        (above * precision).sum(axis=0), found, out=np.full(len(pairs), np.nan), where=defined
    )
    return np.stack([auroc, average])
