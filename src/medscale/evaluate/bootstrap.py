"""Bootstrap over patients: computes every metric on all resamples at once, as weighted counts."""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array

from medscale.evaluate import calibration
from medscale.evaluate.recalibration import BLOCK_SIZE

LEVEL = 0.95
AREAS = ("auroc", "auprc")
# A resample misses a class of k groups with a probability of about exp(-k). From k = 4 on that is
# below the 2.5 % that the interval cuts off at each end. With fewer groups, resamples that miss the
# class would change the interval of an average over classes.
FEWEST_GROUPS = 4
ROUNDING = 1e-12  # by so much equal values of resamples differ


class ResampleMetrics(NamedTuple):
    """Metrics of one replicate on R resamples."""

    overall: dict[str, np.ndarray]  # values by metric, float64, shape R
    by_class: dict[str, np.ndarray]  # values by metric, float64, shape R,K


def draw(groups: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each patient is drawn in each resample, int64, shape R,G.

    Whole groups are drawn with replacement (Efron & Tibshirani 1993), since the images of one
    patient are not independent (cluster bootstrap, Field & Welsh 2007).

    Args:
        groups: number of groups G.
        resamples: number of resamples R.
        seed: seed of the generator; equal seeds give equal resamples.
    """
    return np.random.default_rng(seed).multinomial(
        groups, np.full(groups, 1 / groups), size=resamples
    )


def averaged_classes(labels: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Return which classes take part in averages over classes, bool, shape K.

    Classes of fewer than ``FEWEST_GROUPS`` groups are left out. All classes take part if there are
    two, or if fewer than two would remain.

    Args:
        labels: true class codes, shape N.
        groups: group code of each image, shape N.
        classes: number of classes K.
    """
    enough = groups_by_class(labels, groups, classes) >= FEWEST_GROUPS
    if classes == 2 or enough.sum() < 2:
        return np.ones(classes, bool)
    return enough


def groups_by_class(labels: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Return how many groups have an image of each class, int64, shape K.

    The arguments are those of ``averaged_classes``.
    """
    pairs = np.unique(np.column_stack([labels, groups]), axis=0)
    return np.bincount(pairs[:, 0], minlength=classes)


def resample(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    draw_counts: np.ndarray,
    *,
    complete: bool = True,
    class_mask: np.ndarray | None = None,
) -> ResampleMetrics:
    """Compute all metrics of ``medscale.evaluate.metrics`` on every resample.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.
        groups: group code of each image, shape N.
        draw_counts: resamples from ``draw``, shape R,G.
        complete: whether to compute micro averages of the areas, and calibration slope and
            intercept. They take as long as all other metrics together.
        class_mask: classes that take part in averages over classes, bool, shape K; None: all.

    Returns:
        The values that ``metrics.point`` and ``metrics.per_class`` give for the resampled images.
    """
    classes = probabilities.shape[1]
    overall, by_class = decisions(labels, probabilities, groups, draw_counts, class_mask)
    areas = [_areas(labels == c, probabilities[:, c], groups, draw_counts) for c in range(classes)]
    for name, values in zip(AREAS, np.stack(areas, axis=2), strict=True):
        by_class[name] = values
        overall[name] = headline(values, class_mask)
    if classes > 2 and complete:
        truth = np.eye(classes, dtype=bool)[labels].ravel()
        averages = _areas(truth, probabilities.ravel(), np.repeat(groups, classes), draw_counts)
        overall |= {f"{name}_micro": row for name, row in zip(AREAS, averages, strict=True)}
    overall |= calibration.resample(
        labels, probabilities, groups, draw_counts, recalibrate=complete
    )
    return ResampleMetrics(overall, by_class)


def decisions(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    draw_counts: np.ndarray,
    class_mask: np.ndarray | None = None,
) -> ResampleMetrics:
    """Compute the metrics that depend on the predicted classes alone.

    The arguments are those of ``resample``. As in scikit-learn, averages cover the classes that
    occur in the labels or the predictions (balanced accuracy: in the labels), and a precision
    without predictions counts as 0. MCC is the correlation of Gorodkin (2004).
    """
    classes, calls = probabilities.shape[1], probabilities.argmax(axis=1)
    weights, is_correct = draw_counts.T.astype(np.float64), calls == labels
    hits = _counts(labels[is_correct], groups[is_correct], weights, classes)
    true, predicted = (_counts(codes, groups, weights, classes) for codes in (labels, calls))
    takes_part = np.ones(classes, bool) if class_mask is None else class_mask
    recall = ratio(hits, true, undefined=0.0)
    by_class = {
        "precision": ratio(hits, predicted, undefined=0.0),
        "recall": recall,
        "f1": ratio(2 * hits, true + predicted, undefined=0.0),
    }
    overall = {
        "accuracy": hits.sum(axis=1) / true.sum(axis=1),
        "balanced_accuracy": _average(recall, ((true > 0) & takes_part).astype(np.float64)),
        "mcc": _correlation(hits.sum(axis=1), true, predicted),
    }
    occurs = ((true + predicted) > 0) & takes_part
    for average, shares in (("macro", occurs.astype(np.float64)), ("weighted", true)):
        for name, values in by_class.items():
            overall[f"{name}_{average}"] = _average(values, shares)
    for name in ("recall", "f1"):
        by_class[name] = np.where(true > 0, by_class[name], np.nan)
    return ResampleMetrics(overall, by_class)


def headline(by_class: np.ndarray, class_mask: np.ndarray | None = None) -> np.ndarray:
    """Return the area that represents the task: of the last class of two, or the mean over classes.

    Args:
        by_class: areas of each class against the rest, shape R,K; NaN is left out of the mean.
        class_mask: classes that take part in the mean, bool, shape K; None: all.

    Returns:
        Shape R.
    """
    if by_class.shape[1] == 2:
        return by_class[:, 1]
    if class_mask is not None:
        by_class = by_class[:, class_mask]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        return np.nanmean(by_class, axis=1)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval over resamples (Efron & Tibshirani 1993, ch. 13).

    Resamples in which the metric is undefined (NaN) are left out. If all are undefined, so are both
    ends. ``values``: shape R.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def smallest_share(patients: int) -> float:
    """Return the smallest share of all patients that a test set of so many patients can exclude.

    A share of patients below this one is, with a probability above 2.5 %, not in the test set.
    """
    return -math.expm1(math.log((1 - LEVEL) / 2) / patients)


def score_interval(values: np.ndarray, patients: int, lowest: float = 0.0) -> tuple[float, float]:
    """Return the 95 % interval of a score whose maximum is 1, or of the difference of two.

    Where all resamples have the same value, as with 51 right answers of 51, the bootstrap has no
    width. Where the score is about a single patient, no resample has another one. The interval then
    reaches as far as patients that the test set does not exclude can change the score. For a share
    of 0 or 1 it is that of Clopper & Pearson (Biometrika 1934).

    Args:
        values: the score on each resample, shape R.
        patients: number of patients with an image that the score is about.
        lowest: smallest possible value of the score; of a difference -1.
    """
    low, high = interval(values)
    if math.isnan(low) or (patients > 1 and high - low > ROUNDING):
        return low, high
    unseen = smallest_share(max(patients, 1))
    return max(low - unseen, lowest), min(high + unseen, 1.0)


def distance_interval(
    value: float, values: np.ndarray, noise: np.ndarray, unseen: float = 0.0
) -> tuple[float, float]:
    """Return the 95 % interval of a sum of distances, the ECE, for unlimited test images.

    Such a sum is too large for few images: chance alone moves accuracies away from confidences.
    Resamples add chance once more, so that their percentiles are too large by twice as much and can
    exclude the value itself. The upper end is therefore that of the basic bootstrap (Efron &
    Tibshirani 1993), as in the library of Kumar et al. (NeurIPS 2019): resamples exceed the value
    as it exceeds the sought one. The lower end is the value less the noise, which the triangle
    inequality allows at most; it is 0 where chance explains the value.

    Args:
        value: the sum for the images, mean over replicates.
        values: the sum on each resample, shape R.
        noise: on each resample, the sum of distances from the images' own terms, shape R.
        unseen: share of patients that resamples cannot show, as ``smallest_share``, where all
            answers are right or all wrong; such patients can change the sum by as much.

    Returns:
        Both ends within 0 and 1, which include the value; NaN if it is undefined on all resamples.
    """
    low, farthest = interval(values)[0], interval(noise)[1]
    if math.isnan(low):
        return low, low
    highest = max(2 * value - low, value + unseen)
    return max(value - max(farthest, unseen), 0.0), min(highest, 1.0)


def spread_interval(values: np.ndarray, patients: int) -> tuple[float, float]:
    """Return the percentile interval of a value over bootstrap resamples.

    Its ends are NaN where resamples do not differ, as without any error, and where the value
    depends on a group of one patient, since no resample has another patient of the group.

    Args:
        values: the value on each resample, shape R.
        patients: number of patients of the smallest group that the value depends on.
    """
    low, high = interval(values)
    is_known = patients != 1 and high - low > ROUNDING
    return (low, high) if is_known else (float("nan"), float("nan"))


def with_interval(name: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    """Return ``<name>, <name>_low, <name>_high``: a value with the ends of its interval."""
    return {name: float(value), f"{name}_low": ends[0], f"{name}_high": ends[1]}


def ratio(above: Any, below: Any, undefined: float = np.nan) -> np.ndarray:
    """Return the quotient of two arrays, and ``undefined`` where the divisor is 0 or NaN."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(above.shape, undefined), where=below > 0)


def _counts(codes: np.ndarray, groups: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Return the images by class code on each resample, float64, shape R,K.

    Args:
        codes: class code of each image, shape n.
        groups: group code of each image, shape n.
        weights: how often each group is drawn in each resample, float64, shape G,R.
        classes: number of classes K.
    """
    shape = len(weights), classes
    images = coo_array((np.ones(len(codes)), (groups, codes)), shape=shape).tocsr()
    return np.ascontiguousarray((images.T @ weights).T)


def _correlation(correct: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation coefficient for several classes (Gorodkin 2004), shape R.

    It is undefined (NaN) if all images have one class, and 0 if they have one predicted class.

    Args:
        correct: number of correctly classified images, shape R.
        true, predicted: images by true and by predicted class, shape R,K.
    """
    images = true.sum(axis=1)
    covariance = correct * images - (true * predicted).sum(axis=1)
    variances = [images**2 - (side**2).sum(axis=1) for side in (true, predicted)]
    correlation = ratio(covariance, np.sqrt(variances[0] * variances[1]), undefined=0.0)
    return np.where(variances[0] > 0, correlation, np.nan)


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of each row, shape R; NaN if all weights of a row are 0."""
    return ratio((values * weights).sum(axis=1), weights.sum(axis=1))


def _areas(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, draw_counts: np.ndarray
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
    blocks = (
        draw_counts[start : start + step].T[groups] for start in range(0, len(draw_counts), step)
    )
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
    retrieved = hits + (negatives - smaller)
    precision = ratio(hits, retrieved, undefined=0.0)
    average = ratio((above * precision).sum(axis=0), positives)
    return np.stack([ratio(wins, pairs), np.where(pairs > 0, average, np.nan)])
