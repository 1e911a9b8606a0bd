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
BINS = 15
SMALLEST = np.finfo(np.float64).eps  # smaller probabilities are raised to it, as in scikit-learn
RANGE = (0.05, 20.0)  # in which a temperature is searched


def temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature that minimizes the log loss (Guo et al., ICML 2017, section 4.2).

    Logarithms of probabilities differ from logits by a constant for each image, which the softmax
    ignores, so that predictions suffice.

    Args:
        labels: true class codes of images that are not used for testing, int64, shape N.
        probabilities: shape N,K.

    Returns:
        A value within ``RANGE``, above 1 for overconfident probabilities; NaN without images.
    """
    if not len(labels):
        return float("nan")
    logs = _log(probabilities)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logs / np.exp(log_temperature), axis=1)[rows, labels].mean())

    best = minimize_scalar(
        loss, bounds=tuple(np.log(RANGE)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x))


def tempered(probabilities: np.ndarray, by: float | np.ndarray) -> np.ndarray:
    """Return the probabilities (N,K) after division of the logits by a temperature.

    The order of the classes does not change. With NaN the probabilities do not change. ``by``: the
    temperature, or that of each row, shape N.
    """
    if np.isnan(by).any():
        return probabilities
    return np.asarray(softmax(_log(probabilities) / np.reshape(by, (-1, 1)), axis=1))


def once(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return groups (N) and resamples (1,1) in which each image counts once."""
    return np.zeros(images, np.int64), np.ones((1, 1), np.int64)


def point(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute all metrics of ``NAMES``.

    The Brier score is the mean squared distance to the corner of the true class (Brier 1950),
    halved for two classes so that it equals the usual score of the positive class. ECE is the mean
    distance between confidence (largest probability) and accuracy in ``BINS`` bins of equal width,
    weighted by their number of images (Naeini et al., AAAI 2015). Slope and intercept
    (``recalibration``) are those of the positive class for two classes, and for more those of the
    confidence that the predicted class is correct.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape N,K.
    """
    values = resample(labels, probabilities, *once(len(labels)))
    return {name: float(value[0]) for name, value in values.items()}


def resample(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    drawn: np.ndarray,
    *,
    recalibrate: bool = True,
) -> dict[str, np.ndarray]:
    """Compute ``point`` on every resample; arguments as in ``bootstrap.resample``, values: R.

    ``recalibrate``: whether to compute slope and intercept, which take longer than the errors.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    size, losses = drawn.shape[1], -_log(probabilities)[np.arange(len(labels)), labels]
    images, brier, loss = (
        drawn @ np.bincount(groups, summands, size)
        for summands in (np.ones(len(labels)), _brier(labels, probabilities), losses)
    )
    cells = np.bincount(groups * BINS + _bin(confidence), confidence - right, size * BINS)
    gaps = np.abs(drawn @ cells.reshape(size, BINS)).sum(axis=1)
    values = {"brier": brier / images, "nll": loss / images, "ece": gaps / images}
    if recalibrate:
        fits = recalibration(*_event(labels, probabilities), groups, drawn)
        values |= dict(zip(("calibration_slope", "calibration_intercept"), fits, strict=True))
    return values


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the reliability diagram, summed over replicates: a row for each bin with images.

    Args:
        labels: true class codes, int64, shape N.
        probabilities: shape S,N,K.

    Returns:
        Columns ``low, high`` (limits of the bin), ``images``, and the means of ``confidence`` and
        ``accuracy``.
    """
    confidence = probabilities.max(axis=2).ravel()
    right = (probabilities.argmax(axis=2) == labels[None]).ravel()
    table = pd.DataFrame(
        {"bin": _bin(confidence), "confidence": confidence, "accuracy": right.astype(np.float64)}
    )
    grouped = table.groupby("bin")
    rows = grouped.mean().assign(images=grouped.size()).reset_index()
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
    squared = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1)
    return squared / 2 if classes == 2 else squared


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probabilities, SMALLEST, 1.0))
