"""Point values of the classification metrics, by scikit-learn, and their names."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "precision (macro)",
    "recall_macro": "recall (macro)",
    "f1_macro": "F1 (macro)",
    "precision_weighted": "precision (weighted)",
    "recall_weighted": "recall (weighted)",
    "f1_weighted": "F1 (weighted)",
    "auroc": "AUROC",
    "auroc_micro": "AUROC (micro)",
}
PER_CLASS = ("precision", "recall", "f1", "auroc")
GRID = np.linspace(0, 1, 201)


def names(classes: int) -> list[str]:
    """Metrics of a task; with two classes the micro average of AUROC is left out."""
    return [name for name in NAMES if classes > 2 or name != "auroc_micro"]


def point(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All metrics of one replicate.

    AUROC is that of the last class for two classes, and the mean over classes, each against the rest, for more.
    Averages go over the classes that occur in the labels or predictions (balanced accuracy and AUROC: in the labels),
    as scikit-learn's do.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K; the prediction is the class of the largest.

    Returns:
        A value in 0..1 by metric; NaN for an AUROC that is undefined because only one class occurs.
    """
    predicted = probabilities.argmax(axis=1)
    values = {"accuracy": float(accuracy_score(labels, predicted))}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true|A single label was found")
        values["balanced_accuracy"] = float(balanced_accuracy_score(labels, predicted))
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        values |= {f"{name}_{average}": float(scores[i]) for i, name in enumerate(("precision", "recall", "f1"))}
    values["auroc"] = float(headline_auroc(per_class(labels, probabilities)["auroc"][None])[0])
    if probabilities.shape[1] > 2:
        values["auroc_micro"] = _auroc(np.eye(probabilities.shape[1])[labels].ravel(), probabilities.ravel())
    return values


def per_class(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and one-against-rest AUROC of each class, shape K; NaN where a class does not occur."""
    classes = probabilities.shape[1]
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(classes), zero_division=0
    )
    occurs = support > 0
    auroc = np.array([_auroc(labels == code, probabilities[:, code]) for code in range(classes)])
    return {
        "precision": precision,
        "recall": np.where(occurs, recall, np.nan),
        "f1": np.where(occurs, f1, np.nan),
        "auroc": auroc,
    }


def headline_auroc(by_class: np.ndarray) -> np.ndarray:
    """The AUROC that stands for the task, from those by class (shape R,K): the last of two classes, else their mean."""
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


def _auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    if positive.all() or not positive.any():
        return float("nan")
    return float(roc_auc_score(positive, scores))
