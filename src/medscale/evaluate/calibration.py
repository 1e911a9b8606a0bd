"""Do probabilities mean what they say? Brier score, log loss, calibration error, and a temperature that mends them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

NAMES = {"brier": "Brier score", "nll": "log loss", "ece": "calibration error (ECE)"}
CALIBRATED = {
    f"{name}_calibrated": f"{words}, with the temperature" for name, words in NAMES.items()
}
BINS = 15
SMALLEST = np.finfo(
    np.float64
).eps  # probabilities below it count as it, as in scikit-learn's log loss
RANGE = (0.05, 20.0)  # where a temperature is looked for


def temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature that minimizes the log loss of these images (Guo et al., ICML 2017, section 4.2).

    Logarithms of probabilities differ from logits by a constant an image, which a softmax does not see, so that
    predictions suffice.

    Args:
        labels: true class codes, int64, shape N: of images that are not tested on.
        probabilities: shape N,K.

    Returns:
        Within ``RANGE``; above 1 where probabilities are too sure of themselves. NaN without images.
    """
    if not len(labels):
        return float("nan")
    logs = _log(probabilities)
    each = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logs / np.exp(log_temperature), axis=1)[each, labels].mean())

    found = minimize_scalar(
        loss, bounds=tuple(np.log(RANGE)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def tempered(probabilities: np.ndarray, by: float) -> np.ndarray:
    """Probabilities (N,K) of the logits divided by a temperature; the order of the classes stays. As given for NaN."""
    return probabilities if np.isnan(by) else softmax(_log(probabilities) / by, axis=1)


def point(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All of ``NAMES``; labels of shape N, probabilities N,K.

    The Brier score is the mean over images of the squared distance to the true class's corner (Brier 1950), halved for
    two classes so that it is the usual one of the positive class. ECE is the mean distance between confidence (largest
    probability) and accuracy in ``BINS`` bins of equal width, weighted by their images (Naeini et al., AAAI 2015).
    """
    once = np.ones((1, 1), np.int64)
    values = resample(labels, probabilities, np.zeros(len(labels), np.int64), once)
    return {name: float(value[0]) for name, value in values.items()}


def resample(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> dict[str, np.ndarray]:
    """``point`` on every resample; arguments as those of ``bootstrap.resample``, values of shape R."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    size, losses = drawn.shape[1], -_log(probabilities)[np.arange(len(labels)), labels]
    images, brier, loss = (
        drawn @ np.bincount(groups, each, size)
        for each in (np.ones(len(labels)), _brier(labels, probabilities), losses)
    )
    cells = np.bincount(groups * BINS + _bin(confidence), confidence - right, size * BINS)
    gaps = np.abs(drawn @ cells.reshape(size, BINS)).sum(axis=1)
    return {"brier": brier / images, "nll": loss / images, "ece": gaps / images}


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The reliability diagram of shape S,N,K replicates: a row a bin that has images, summed over replicates.

    Returns:
        ``low, high`` (the bin), ``images``, and means of ``confidence`` and ``accuracy``.
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


def _bin(confidence: np.ndarray) -> np.ndarray:
    """Bins are (low, high]."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _brier(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    classes = probabilities.shape[1]
    squared = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1)
    return squared / 2 if classes == 2 else squared


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probabilities, SMALLEST, 1.0))
