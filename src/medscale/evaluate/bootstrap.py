"""Bootstrap over patients: computes every metric on all resamples at once, as weighted counts."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array

from medscale.evaluate import calibration

LEVEL = 0.95
AREAS = ("auroc", "auprc")
# A resample misses a class of k groups with a probability of about exp(-k). From 4 on it is below
# the 2.5 % that the interval cuts off at each end; with fewer, missing classes bend the averages.
FEWEST_GROUPS = 4
BLOCK_SIZE = 500_000  # weights in memory at once: 4 MB, so that they stay in the processor's cache


class Resampled(NamedTuple):
    """Metrics of all resamples."""

    overall: dict[str, np.ndarray]  # by metric, float64, shape R
    by_class: dict[str, np.ndarray]  # by metric, float64, shape R,K


def draw(groups: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each patient is drawn in each resample, int64, shape R,G.

    Draws whole groups with replacement (Efron & Tibshirani 1993), since the images of one patient
    are not independent (cluster bootstrap, Field & Welsh 2007). ``seed``: seed of the generator;
    equal seeds give equal resamples.
    """
    return np.random.default_rng(seed).multinomial(
        groups, np.full(groups, 1 / groups), size=resamples
    )


def averaged_classes(labels: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Return which classes take part in averages over classes, bool, shape K.

    Those of fewer than ``FEWEST_GROUPS`` groups are left out; of two classes, and where fewer than
    two would remain, none is.

    Args:
        labels: true class codes, shape N.
        groups: group code of each image, shape N.
        classes: number of classes K.
    """
    pairs = np.unique(np.column_stack([labels, groups]), axis=0)
    enough = np.bincount(pairs[:, 0], minlength=classes) >= FEWEST_GROUPS
    if classes == 2 or enough.sum() < 2:
        return np.ones(classes, bool)
    return enough


def resample(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    drawn: np.ndarray,
    *,
    complete: bool = True,
    averaged: np.ndarray | None = None,
) -> Resampled:
    """Compute all metrics of ``medscale.evaluate.metrics`` on every resample.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.
        groups: group code of each image, shape N.
        drawn: resamples from ``draw``, shape R,G.
        complete: whether to compute the micro averages of the areas, and the calibration's slope
            and intercept, which take as long as all other metrics together.
        averaged: classes that take part in averages over classes, bool, shape K; None: all.

    Returns:
        The values that ``metrics.point`` and ``metrics.per_class`` give for the resampled images.
    """
    classes = probabilities.shape[1]
    overall, by_class = decisions(labels, probabilities, groups, drawn, averaged)
    areas = [_areas(labels == c, probabilities[:, c], groups, drawn) for c in range(classes)]
    for name, values in zip(AREAS, np.stack(areas, axis=2), strict=True):
        by_class[name] = values
        overall[name] = headline(values, averaged)
    if classes > 2 and complete:
        truth = np.eye(classes, dtype=bool)[labels].ravel()
        averages = _areas(truth, probabilities.ravel(), np.repeat(groups, classes), drawn)
        overall |= {f"{name}_micro": row for name, row in zip(AREAS, averages, strict=True)}
    overall |= calibration.resample(labels, probabilities, groups, drawn, recalibrate=complete)
    return Resampled(overall, by_class)


def decisions(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    drawn: np.ndarray,
    averaged: np.ndarray | None = None,
) -> Resampled:
    """Compute the metrics of the predicted classes alone; arguments as those of ``resample``.

    Averages go over the classes that occur in the labels or predictions (balanced accuracy: in
    the labels), as those of scikit-learn do. A precision without predictions counts as 0.
    """
    classes = probabilities.shape[1]
    counts = _confusions(labels, probabilities.argmax(axis=1), groups, drawn, classes)
    hits = np.einsum("rkk->rk", counts)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    takes_part = np.ones(classes, bool) if averaged is None else averaged
    recall = _ratio(hits, true)
    by_class = {
        "precision": _ratio(hits, predicted),
        "recall": recall,
        "f1": _ratio(2 * hits, true + predicted),
    }
    overall = {
        "accuracy": hits.sum(axis=1) / true.sum(axis=1),
        "balanced_accuracy": _average(recall, ((true > 0) & takes_part).astype(np.float64)),
        "mcc": _correlation(hits.sum(axis=1), true, predicted),
    }
    occurs = ((true + predicted) > 0) & takes_part
    weights = {"macro": occurs.astype(np.float64), "weighted": true}
    for average, weight in weights.items():
        for name, values in by_class.items():
            overall[f"{name}_{average}"] = _average(values, weight)
    for name in ("recall", "f1"):
        by_class[name] = np.where(true > 0, by_class[name], np.nan)
    return Resampled(overall, by_class)


def headline(by_class: np.ndarray, averaged: np.ndarray | None = None) -> np.ndarray:
    """Return the area that represents the task: that of the last of two classes, or the mean.

    Args:
        by_class: areas of each class against the rest, shape R,K; NaN is left out of the mean.
        averaged: classes that take part in the mean, bool, shape K; None: all.

    Returns:
        Shape R.
    """
    if by_class.shape[1] == 2:
        return by_class[:, 1]
    if averaged is not None:
        by_class = by_class[:, averaged]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        return np.nanmean(by_class, axis=1)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval over resamples (Efron & Tibshirani 1993, ch. 13).

    Leaves out resamples in which the metric is undefined (NaN); NaN if all are.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _confusions(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, drawn: np.ndarray, classes: int
) -> np.ndarray:
    """Return the confusion matrices (rows: truth) of all resamples, float64, shape R,K,K."""
    shape = (drawn.shape[1], classes * classes)
    cells = coo_array(
        (np.ones(len(labels)), (groups, labels * classes + predicted)), shape=shape
    ).tocsr()
    return (cells.T @ drawn.T.astype(np.float64)).T.reshape(len(drawn), classes, classes)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _correlation(correct: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation for several classes (Gorodkin 2004), shape R.

    It is 0 where all images are of one class, or are predicted to be.

    Args:
        correct: number of correctly classified images, shape R.
        true, predicted: images by true and by predicted class, shape R,K.
    """
    images = true.sum(axis=1)
    covariance = correct * images - (true * predicted).sum(axis=1)
    variances = [images**2 - (side**2).sum(axis=1) for side in (true, predicted)]
    return _ratio(covariance, np.sqrt(variances[0] * variances[1]))


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted means of rows; NaN for a resample with no class that takes part."""
    total = weights.sum(axis=1)
    undefined = np.full(len(total), np.nan)
    return np.divide((values * weights).sum(axis=1), total, out=undefined, where=total > 0)


def _areas(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """Return AUROC and average precision of all resamples, shape 2,R.

    AUROC is the Mann-Whitney statistic; ties count half (Hanley & McNeil 1982). Average precision
    is the mean over positive images of the precision among the images that score as high or
    higher.
    """
    order = np.argsort(scores, kind="stable")
    ordered, positive, groups = scores[order], positive[order], groups[order]
    first = np.searchsorted(ordered, ordered[positive], side="left")
    last = np.searchsorted(ordered, ordered[positive], side="right")
    better = np.searchsorted(first, first, side="left")
    step = max(1, BLOCK_SIZE // len(order))
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
    """Return both areas of a block of resamples, shape 2,r.

    Args:
        weights: how often each image is drawn, by ascending score, int64, shape N,r; overwritten.
        positive: which images are of the class, bool, shape N.
        first: for each positive image, the number of images with a smaller score.
        last: for each positive image, the number of images with a smaller or equal score.
        better: for each positive image, the number of positive images with a smaller score.
    """
    above = weights[positive]
    weights[positive] = 0
    below = np.concatenate([np.zeros_like(weights[:1]), np.cumsum(weights, axis=0)])
    smaller = below[first]
    wins = (above * (smaller + below[last])).sum(axis=0) / 2
    positives, negatives = above.sum(axis=0), below[-1]
    pairs = (positives * negatives).astype(np.float64)
    hits = np.concatenate([np.zeros_like(above[:1]), np.cumsum(above, axis=0)])
    hits = positives - hits[better]  # positive images that score as high or higher
    kept = hits + (negatives - smaller)
    precision = np.divide(hits, kept, out=np.zeros(kept.shape), where=kept > 0)
    undefined, defined = np.full(len(pairs), np.nan), pairs > 0
    auroc = np.divide(wins, pairs, out=undefined.copy(), where=defined)
    average = np.divide((above * precision).sum(axis=0), positives, out=undefined, where=defined)
    return np.stack([auroc, average])
