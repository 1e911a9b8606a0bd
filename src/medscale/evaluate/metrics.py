"""Names, point values and curves of the classification metrics."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from medscale.evaluate import bootstrap, calibration
from medscale.evaluate.bootstrap import AREAS, ResampleMetrics
from medscale.evaluate.replicates import Predictions

NAMES = {
    "accuracy": "accuracy",  # equals micro precision, recall and F1: an image has one class
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "precision (macro)",
    "recall_macro": "recall (macro)",
    "f1_macro": "F1 (macro)",
    "precision_weighted": "precision (weighted)",
    "recall_weighted": "recall (weighted)",
    "f1_weighted": "F1 (weighted)",
    "mcc": "MCC",
    "auroc": "AUROC",
    "auroc_micro": "AUROC (micro)",
    "auprc": "average precision",
    "auprc_micro": "average precision (micro)",
    **calibration.NAMES,
}
PER_CLASS = ("precision", "recall", "f1", "auroc", "auprc")
MICRO = tuple(f"{area}_micro" for area in AREAS)
GRID = np.linspace(0, 1, 201)


def names(classes: int) -> list[str]:
    """Return the metrics of a task; with two classes the areas have no micro averages."""
    return [name for name in NAMES if classes > 2 or name not in MICRO]


def in_percent(name: str) -> bool:
    """Return whether a metric is a share of images, which is printed in percent."""
    return not name.startswith(("mcc", *AREAS, *calibration.NAMES))


def smallest_class(predictions: Predictions, class_mask: np.ndarray | None) -> int:
    """Return the number of patients of the smallest class that takes part in averages.

    Without such a class it is the number of all patients. The mask is that of ``interval``.
    """
    groups, classes = predictions.groups, predictions.probabilities.shape[2]
    sizes = bootstrap.groups_by_class(predictions.labels, groups, classes)
    takes_part = (sizes > 0) & (True if class_mask is None else class_mask)
    return int(sizes[takes_part].min(initial=len(np.unique(groups))))


def interval(
    name: str,
    predictions: Predictions,
    points: Sequence[Mapping[str, float]],
    resample_values: Sequence[Mapping[str, np.ndarray]],
    class_mask: np.ndarray | None,
) -> tuple[float, float]:
    """Return the interval over patients of a metric, mean over replicates.

    Args:
        name: a metric of ``NAMES``.
        predictions: predictions of the images that the metric is about.
        points: metrics of these images, of each replicate.
        resample_values: the metrics on each resample (shape R), of each replicate.
        class_mask: classes over which the values are averages, bool, shape K; None: all.
    """
    values = _mean(resample_values, name)
    if name == "ece":
        value = float(np.mean([point[name] for point in points]))
        noise = _mean(resample_values, calibration.NOISE)
        return bootstrap.distance_interval(value, values, noise, _unseen(predictions))
    return _interval(name, predictions, values, class_mask)


def _unseen(predictions: Predictions) -> float:
    """Return the share of patients with other answers that a test set does not exclude.

    It is 0 if the test set has right and wrong answers, since resamples then show the spread.
    """
    is_correct = predictions.probabilities.argmax(axis=2) == predictions.labels
    patients = len(np.unique(predictions.groups))
    do_differ = patients > 1 and is_correct.any() and not is_correct.all()
    return 0.0 if do_differ else bootstrap.smallest_share(patients)


def difference_interval(
    name: str, predictions: Predictions, values: np.ndarray, class_mask: np.ndarray | None
) -> tuple[float, float]:
    """Return the interval of a difference of two values of a metric on the same images.

    The arguments are those of ``interval``; ``values`` are the differences on each resample, shape
    R. Two calibration errors are too large by about the same, so that their difference needs no
    other interval than that of another metric.
    """
    return _interval(name, predictions, values, class_mask, is_difference=True)


def _interval(
    name: str,
    predictions: Predictions,
    values: np.ndarray,
    class_mask: np.ndarray | None,
    *,
    is_difference: bool = False,
) -> tuple[float, float]:
    if name in calibration.NAMES:  # not bounded by 1
        return bootstrap.interval(values)
    if name == "accuracy" or name.endswith(("_weighted", "_micro")):
        patients = len(np.unique(predictions.groups))
    else:  # the smallest class changes an average over classes most
        patients = smallest_class(predictions, class_mask)
    lowest = -1.0 if is_difference or name == "mcc" else 0.0
    return bootstrap.score_interval(values, patients, lowest)


def point(
    labels: np.ndarray, probabilities: np.ndarray, class_mask: np.ndarray | None = None
) -> dict[str, float]:
    """Compute all metrics of one replicate.

    AUROC, and average precision (the area under the precision-recall curve without interpolation),
    are computed by scikit-learn. With two classes they are those of the last class; with more they
    are means over the classes, each against the rest.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K; the predicted class is the one with the largest.
        class_mask: classes that take part in averages over classes, bool, shape K; None: all.

    Returns:
        Values by metric; NaN for an area that is undefined, since only one class occurs.
    """
    decision_values = _decision_metrics(labels, probabilities, class_mask).overall
    values = {name: float(value[0]) for name, value in decision_values.items()}
    by_class = _areas(np.eye(probabilities.shape[1], dtype=bool)[labels], probabilities)
    values |= {
        name: float(bootstrap.headline(by_class[name][None], class_mask)[0]) for name in AREAS
    }
    if probabilities.shape[1] > 2:
        truth = np.eye(probabilities.shape[1], dtype=bool)[labels].reshape(-1, 1)
        micro = _areas(truth, probabilities.reshape(-1, 1))
        values |= {f"{name}_micro": float(micro[name][0]) for name in AREAS}
    return values | calibration.point(labels, probabilities)


def points(
    predictions: Predictions, class_mask: np.ndarray | None = None
) -> list[dict[str, float]]:
    """Return the metrics of each replicate; ``class_mask``: see ``point``."""
    return [point(predictions.labels, p, class_mask) for p in predictions.probabilities]


def resamples(
    predictions: Predictions,
    draw_counts: np.ndarray,
    class_mask: np.ndarray | None = None,
    *,
    complete: bool = True,
) -> list[ResampleMetrics]:
    """Return the metrics of each replicate on every resample; all replicates share the resamples.

    A metric is NaN in a resample that draws no image, as can happen in a fold or subgroup.

    Args:
        predictions: predictions of N images.
        draw_counts: resamples of their groups, from ``bootstrap.draw``, shape R,G.
        class_mask, complete: see ``bootstrap.resample``.
    """
    labels, groups = predictions.labels, predictions.groups
    with np.errstate(invalid="ignore"):
        return [
            bootstrap.resample(
                labels, p, groups, draw_counts, complete=complete, class_mask=class_mask
            )
            for p in predictions.probabilities
        ]


def per_class(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall, F1 and the areas of each class against the rest.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.

    Returns:
        Values by metric of ``PER_CLASS``, shape K; NaN for a class that does not occur.
    """
    values = {name: rows[0] for name, rows in _decision_metrics(labels, probabilities)[1].items()}
    return values | _areas(np.eye(probabilities.shape[1], dtype=bool)[labels], probabilities)


def roc_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Return the true-positive rates at the false-positive rates ``GRID``.

    Curves on a common grid can be averaged at equal false-positive rates (Fawcett, Pattern
    Recognition Letters 2006).

    Args:
        labels: whether each image is positive, bool, shape N.
        scores: probability of the positive class, shape N.

    Returns:
        Shape 201; None if only one class occurs.
    """
    if _one_class(labels):
        return None
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = np.interp(GRID, false, true)
    curve[0] = 0.0
    return curve


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Return the precisions at the recalls ``GRID``, each at the highest score that reaches it.

    There is no interpolation between scores, which would be too optimistic (Davis & Goadrich, ICML
    2006). Arguments and result have the form of those of ``roc_points``.
    """
    if _one_class(labels):
        return None
    precision, recall, _ = precision_recall_curve(labels, scores)  # ascending score, falling recall
    positions = np.searchsorted(-recall, -GRID + 1e-12, side="right") - 1
    curve = precision[positions]
    curve[0] = precision[-2]  # that of the highest score; scikit-learn appends a 1 at recall 0
    return curve


def _mean(resample_values: Sequence[Mapping[str, np.ndarray]], name: str) -> np.ndarray:
    """Return a metric on each resample, mean over replicates, shape R."""
    return np.mean([values[name] for values in resample_values], axis=0)


def _decision_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_mask: np.ndarray | None = None
) -> ResampleMetrics:
    """Compute the metrics of the predicted classes on the original images (R = 1)."""
    return bootstrap.decisions(labels, probabilities, *calibration.once(len(labels)), class_mask)


def _areas(positive: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return AUROC and average precision of each column, shape K; positive, scores: shape N,K.

    scikit-learn computes them, since ``bootstrap.resample`` adds in another order and differs in
    the last digits. A test compares both.
    """
    functions = (roc_auc_score, average_precision_score)
    columns = list(zip(positive.T, scores.T, strict=True))
    return {
        name: np.array([np.nan if _one_class(p) else float(area(p, s)) for p, s in columns])
        for name, area in zip(AREAS, functions, strict=True)
    }


def _one_class(positive: np.ndarray) -> bool:
    return bool(positive.all() or not positive.any())
