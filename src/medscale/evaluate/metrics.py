"""Point values of the classification metrics, by scikit-learn, and their names."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from medscale.evaluate import calibration

NAMES = {
    "accuracy": "accuracy",  # with one class an image it is also the micro average of precision, recall and F1
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "precision (macro)",
    "recall_macro": "recall (macro)",
    "f1_macro": "F1 (macro)",
    "precision_weighted": "precision (weighted)",
    "recall_weighted": "recall (weighted)",
    "f1_weighted": "F1 (weighted)",
    "auroc": "AUROC",
    "auroc_micro": "AUROC (micro)",
    "auprc": "average precision",
    "auprc_micro": "average precision (micro)",
    **calibration.NAMES,
}
PER_CLASS = ("precision", "recall", "f1", "auroc", "auprc")
AREAS = ("auroc", "auprc")
MICRO = tuple(f"{area}_micro" for area in AREAS)
GRID = np.linspace(0, 1, 201)


def names(classes: int) -> list[str]:
    """Metrics of a task; with two classes the micro averages of the areas are left out."""
    return [name for name in NAMES if classes > 2 or name not in MICRO]


def in_percent(name: str) -> bool:
    """Whether a metric is told in percent: a share of images; areas and what measures calibration are not."""
    return not name.startswith((*AREAS, *calibration.NAMES))


def point(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All metrics of one replicate.

    AUROC and average precision (the area under the precision-recall curve, without interpolation) are those of the last
    class for two classes, and the mean over classes, each against the rest, for more. The micro average of precision,
    recall and F1 is the accuracy, since each image has one class.
    Averages go over the classes that occur in the labels or predictions (balanced accuracy and AUROC: in the labels),
    as scikit-learn's do.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K; the prediction is the class of the largest.

    Returns:
        A value by metric; NaN for an area that is undefined because only one class occurs.
    """
    predicted = probabilities.argmax(axis=1)
    values = {"accuracy": float(accuracy_score(labels, predicted))}
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="y_pred contains classes not in y_true|A single label was found"
        )
        values["balanced_accuracy"] = float(balanced_accuracy_score(labels, predicted))
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        values |= {
            f"{name}_{average}": float(scores[i])
            for i, name in enumerate(("precision", "recall", "f1"))
        }
    by_class = per_class(labels, probabilities)
    values |= {area: float(headline(by_class[area][None])[0]) for area in AREAS}
    if probabilities.shape[1] > 2:
        truth = np.eye(probabilities.shape[1], dtype=bool)[labels].ravel()
        values["auroc_micro"] = _auroc(truth, probabilities.ravel())
        values["auprc_micro"] = _auprc(truth, probabilities.ravel())
    return values | calibration.point(labels, probabilities)


def per_class(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and one-against-rest areas of each class, shape K; NaN where a class does not occur."""
    classes = probabilities.shape[1]
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(classes), zero_division=0
    )
    occurs = support > 0
    areas = {
        name: np.array([area(labels == code, probabilities[:, code]) for code in range(classes)])
        for name, area in (("auroc", _auroc), ("auprc", _auprc))
    }
    return {
        "precision": precision,
        "recall": np.where(occurs, recall, np.nan),
        "f1": np.where(occurs, f1, np.nan),
        **areas,
    }


def headline(by_class: np.ndarray) -> np.ndarray:
    """The area that stands for the task, from those by class (shape R,K): the last of two classes, else their mean."""
    if by_class.shape[1] == 2:
        return by_class[:, 1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        return np.nanmean(by_class, axis=1)


def roc_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """True-positive rate on the grid of false-positive rates ``GRID``; None when only one class occurs.

    Curves are averaged vertically, at equal false-positive rate (Fawcett 2006).
    """
    if labels.all() or not labels.any():
        return None
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = np.interp(GRID, false, true)
    curve[0] = 0.0
    return curve


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Precision on the grid of recalls ``GRID``: that at the highest score which reaches the recall; None as above.

    Precision is not interpolated between scores, which would be too optimistic (Davis & Goadrich 2006).
    """
    if labels.all() or not labels.any():
        return None
    precision, recall, _ = precision_recall_curve(
        labels, scores
    )  # by ascending score: recall falls
    reached = np.searchsorted(-recall, -GRID + 1e-12, side="right") - 1
    curve = precision[reached]
    curve[0] = precision[
        -2
    ]  # at recall 0: that of the highest score, not the 1 which scikit-learn adds
    return curve


def _auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    if positive.all() or not positive.any():
        return float("nan")
    return float(roc_auc_score(positive, scores))


def _auprc(positive: np.ndarray, scores: np.ndarray) -> float:
    if positive.all() or not positive.any():
        return float("nan")
    return float(average_precision_score(positive, scores))
