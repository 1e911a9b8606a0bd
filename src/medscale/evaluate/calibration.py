"""Calibration: Brier score, log loss, calibration error, and temperature scaling."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from medscale.evaluate.recalibration import recalibration

ERRORS = {"brier": "Brier score", "nll": "log loss", "ece": "calibration error (ECE)"}
NAMES = ERRORS | {
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}
CALIBRATED = {
    f"{name}_calibrated": f"{words}, with the temperature" for name, words in NAMES.items()
}
NOISE = "ece_noise"  # distance between the bins of a resample and those of all images
BINS = 15
SMALLEST = np.finfo(np.float64).eps  # lower bound of probabilities in logarithms (scikit-learn's)
RANGE = (0.05, 20.0)  # bounds of the search for a temperature


def temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature that minimizes the log loss (Guo et al., ICML 2017, section 4.2).

    If all images are classified correctly, the log loss of their labels has no minimum, and the
    probabilities would become 0 and 1. The targets are therefore smoothed as in Platt (1999): of N
    images, the true class has the target (N + 1) / (N + 2), and the other classes share the rest.

    The logarithms of an image's probabilities differ from its logits by a constant, which the
    softmax cancels. Probabilities therefore suffice.

    Args:
        labels: true class codes of validation images, int64, shape N.
        probabilities: shape N,K.

    Returns:
        A value within ``RANGE``, above 1 for overconfident probabilities; NaN without images.
    """
    if not len(labels):
        return float("nan")
    logs = _log(probabilities)
    images, classes = logs.shape
    targets = np.full(logs.shape, 1 / ((images + 2) * max(1, classes - 1)))
    targets[np.arange(images), labels] = (images + 1) / (images + 2)

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(logs / np.exp(log_temperature), axis=1)).sum())

    best = minimize_scalar(
        loss, bounds=tuple(np.log(RANGE)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x))


def apply_temperature(probabilities: np.ndarray, temperatures: float | np.ndarray) -> np.ndarray:
    """Return the probabilities after division of the logits by a temperature, shape N,K.

    The ranking of the classes does not change.

    Args:
        probabilities: shape N,K.
        temperatures: one temperature, or one for each row, shape N. If any is NaN, the
            probabilities are returned unchanged.
    """
    if np.isnan(temperatures).any():
        return probabilities
    return np.asarray(softmax(_log(probabilities) / np.reshape(temperatures, (-1, 1)), axis=1))


def once(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return group codes (N) and draw counts (1,1) that count each image once."""
    return np.zeros(images, np.int64), np.ones((1, 1), np.int64)


def point(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute all metrics of ``NAMES``.

    - Brier score: mean squared distance between the probabilities and the one-hot true class (Brier
      1950). With two classes it is halved and equals the usual score of the positive class.
    - ECE: mean distance between confidence (the largest probability) and accuracy in ``BINS`` bins
      of equal width, weighted by their number of images (Naeini et al., AAAI 2015).
    - Slope and intercept: results of ``recalibration``. With two classes the event is the positive
      class; with more it is that the predicted class is correct.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.

    Returns:
        Values by metric.
    """
    values = resample(labels, probabilities, *once(len(labels)))
    return {name: float(values[name][0]) for name in NAMES}


def resample(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    draw_counts: np.ndarray,
    *,
    recalibrate: bool = True,
) -> dict[str, np.ndarray]:
    """Compute the metrics of ``point`` on every resample.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.
        groups: group code of each image, shape N.
        draw_counts: resamples from ``bootstrap.draw``, shape R,G.
        recalibrate: whether to compute slope and intercept, which take longer than the errors.

    Returns:
        Values by metric, and ``NOISE`` (for ``bootstrap.distance_interval``), shape R.
    """
    confidence, is_correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    size, losses = draw_counts.shape[1], -_log(probabilities)[np.arange(len(labels)), labels]
    images, brier, loss = (
        draw_counts @ np.bincount(groups, summands, size)
        for summands in (np.ones(len(labels)), _brier(labels, probabilities), losses)
    )
    cells = np.bincount(groups * BINS + _bin(confidence), confidence - is_correct, size * BINS)
    by_group = cells.reshape(size, BINS)
    sums = draw_counts @ by_group
    gaps = np.abs(sums).sum(axis=1)
    values = {"brier": brier / images, "nll": loss / images, "ece": gaps / images}
    own = by_group.sum(axis=0) / len(labels)
    values[NOISE] = np.abs(sums / images[:, None] - own).sum(axis=1)
    if recalibrate:
        fits = recalibration(*_event(labels, probabilities), groups, draw_counts)
        values |= dict(zip(("calibration_slope", "calibration_intercept"), fits, strict=True))
    return values


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the reliability diagram of all replicates together: one row for each bin with images.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape S,N,K.

    Returns:
        Columns ``low, high`` (limits of the bin), ``images``, and the means of ``confidence`` and
        ``accuracy``.
    """
    confidence = probabilities.max(axis=2).ravel()
    is_correct = (probabilities.argmax(axis=2) == labels[None]).ravel()
    table = pd.DataFrame(
        {
            "bin": _bin(confidence),
            "confidence": confidence,
            "accuracy": is_correct.astype(np.float64),
        }
    )
    by_bin = table.groupby("bin")
    rows = by_bin.mean().assign(images=by_bin.size()).reset_index()
    rows["low"], rows["high"] = rows["bin"] / BINS, (rows["bin"] + 1) / BINS
    return rows[["low", "high", "images", "confidence", "accuracy"]]


def _event(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the predicted event occurred (bool, N), and its logits (N).

    The event is the positive class for two classes, and a correct prediction for more.
    """
    if probabilities.shape[1] == 2:
        logs = _log(probabilities)
        return labels == 1, logs[:, 1] - logs[:, 0]
    confidence = probabilities.max(axis=1)
    return probabilities.argmax(axis=1) == labels, _log(confidence) - _log(1 - confidence)


def _bin(confidence: np.ndarray) -> np.ndarray:
    """Return the number of the bin (low, high] of each confidence."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _brier(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    classes = probabilities.shape[1]
    distances = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1)
    return distances / 2 if classes == 2 else distances


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probabilities, SMALLEST, 1.0))
