"""Names, point values and curves of the classification metrics."""

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from medscale.evaluate import bootstrap, calibration
from medscale.evaluate.bootstrap import AREAS, Resampled

NAMES = {
    "accuracy": "accuracy",  # with one class an image also the micro precision, recall and F1
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
    """Return the metrics of a task; two classes have no micro averages of the areas."""
    return [name for name in NAMES if classes > 2 or name not in MICRO]


def in_percent(name: str) -> bool:
    """Tell whether a metric is a share of images and so given in percent."""
    return not name.startswith(("mcc", *AREAS, *calibration.NAMES))


def point(
    labels: np.ndarray, probabilities: np.ndarray, averaged: np.ndarray | None = None
) -> dict[str, float]:
    """Compute all metrics of one replicate.

    AUROC and average precision (the area under the precision-recall curve, not interpolated) are
    those of the last class for two classes, and the mean over classes, each against the rest, for
    more.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K; the prediction is the class with the largest one.
        averaged: classes that take part in averages over classes, bool, shape K; None: all.

    Returns:
        A value by metric; NaN for an area that is undefined because only one class occurs.
    """
    decided = _decided(labels, probabilities, averaged).overall
    values = {name: float(value[0]) for name, value in decided.items()}
    by_class = _areas(np.eye(probabilities.shape[1], dtype=bool)[labels], probabilities)
    values |= {name: float(bootstrap.headline(by_class[name][None], averaged)[0]) for name in AREAS}
    if probabilities.shape[1] > 2:
        truth = np.eye(probabilities.shape[1], dtype=bool)[labels].reshape(-1, 1)
        micro = _areas(truth, probabilities.reshape(-1, 1))
        values |= {f"{name}_micro": float(micro[name][0]) for name in AREAS}
    return values | calibration.point(labels, probabilities)


def per_class(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall, F1 and the areas of each class against the rest.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.

    Returns:
        Values by metric of ``PER_CLASS``, shape K; NaN for a class that does not occur.
    """
    values = {name: rows[0] for name, rows in _decided(labels, probabilities)[1].items()}
    return values | _areas(np.eye(probabilities.shape[1], dtype=bool)[labels], probabilities)


def roc_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Return the true-positive rates at the false-positive rates ``GRID``.

    Curves on a common grid can be averaged at equal false-positive rates (Fawcett 2006).

    Args:
        labels: whether each image is positive, bool, shape N.

    Returns:
        Shape 201; None when only one class occurs.
    """
    if _one_class(labels):
        return None
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = np.interp(GRID, false, true)
    curve[0] = 0.0
    return curve


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Return the precisions at the recalls ``GRID``, each at the highest score that reaches it.

    Does not interpolate between scores, which would be too optimistic (Davis & Goadrich 2006).
    Arguments and shape as those of ``roc_points``.
    """
    if _one_class(labels):
        return None
    precision, recall, _ = precision_recall_curve(labels, scores)  # ascending score, falling recall
    reached = np.searchsorted(-recall, -GRID + 1e-12, side="right") - 1
    curve = precision[reached]
    curve[0] = precision[-2]  # that of the highest score; scikit-learn appends a 1 at recall 0
    return curve


def _decided(
    labels: np.ndarray, probabilities: np.ndarray, averaged: np.ndarray | None = None
) -> Resampled:
    """Compute the metrics of the predicted classes on the images as they are (R is 1)."""
    return bootstrap.decisions(labels, probabilities, *calibration.once(len(labels)), averaged)


def _areas(positive: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return AUROC and average precision of each column, shape K; positive, scores: shape N,K.

    By scikit-learn and not by ``bootstrap.resample``, which sums in another order: the published
    values keep scikit-learn's last digits. A test compares both.
    """
    functions = (roc_auc_score, average_precision_score)
    columns = list(zip(positive.T, scores.T, strict=True))
    return {
        name: np.array([np.nan if _one_class(p) else float(area(p, s)) for p, s in columns])
        for name, area in zip(AREAS, functions, strict=True)
    }


def _one_class(positive: np.ndarray) -> bool:
    return bool(positive.all() or not positive.any())
