"""Metrics of predicted boxes: overlap, matching, average precision and the RSNA challenge score."""

from dataclasses import dataclass

import numpy as np

from medscale.evaluate.bootstrap import BLOCK_SIZE

NAMES = {
    "map50": "mAP at IoU 0.5",
    "map_challenge": "challenge mAP (IoU 0.4–0.75)",
    "precision": "precision (IoU 0.5)",
    "recall": "recall (IoU 0.5)",
}
CHALLENGE = np.linspace(0.4, 0.75, 8)
# A hit of the challenge has an overlap above its thresholds, one of COCO's measure at least 0.5.
LIMITS = np.append(np.nextafter(CHALLENGE, 1), 0.5)
RECALLS = np.linspace(0, 1, 101)
CANDIDATES = np.arange(1, 100) / 100  # confidence thresholds


@dataclass(frozen=True)
class Matched:
    """The boxes of one replicate in a split, matched to the true ones."""

    truth: np.ndarray  # number of true boxes of each image, int64, shape N
    # number of the image of each predicted box, most confident box first, int64, shape P
    image: np.ndarray
    confidence: np.ndarray  # of each predicted box, shape P
    hits: np.ndarray  # whether it hits a true box at each of ``LIMITS``, bool, shape P,9


def overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (x, y, width, height): P,4 and G,4 to P,G."""
    ours, theirs = ours[:, None], theirs[None]
    low = np.maximum(ours[..., :2], theirs[..., :2])
    high = np.minimum(ours[..., :2] + ours[..., 2:], theirs[..., :2] + theirs[..., 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    return shared / (ours[..., 2:].prod(axis=-1) + theirs[..., 2:].prod(axis=-1) - shared)


def hits(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Tell which boxes of one image hit a true box.

    In order of confidence each box takes the free true box that it overlaps most.

    Args:
        predicted: most confident box first, shape P,4.
        true: shape G,4.

    Returns:
        Whether each box hits at each of ``LIMITS``, bool, shape P,9.
    """
    hit = np.zeros((len(predicted), len(LIMITS)), bool)
    if not len(true):
        return hit
    overlaps = overlap(predicted, true)
    free = np.ones((len(LIMITS), len(true)), bool)
    limits = np.arange(len(LIMITS))
    for number in np.flatnonzero(overlaps.max(axis=1) >= LIMITS.min()):
        candidates = np.where(free, overlaps[number], -1.0)
        best = candidates.argmax(axis=1)
        hit[number] = candidates[limits, best] >= LIMITS
        free[limits[hit[number]], best[hit[number]]] = False
    return hit


def average_precision(matched: Matched, weights: np.ndarray) -> np.ndarray:
    """Compute the average precision at IoU 0.5.

    It is the mean of the interpolated precision at 101 recalls (Lin et al., ECCV 2014); with one
    class it equals the mAP50 of COCO's evaluation.

    Args:
        weights: how often each image counts, int64, shape R,N.

    Returns:
        Shape R; NaN where no image that counts has a true box.
    """
    step = max(1, BLOCK_SIZE // max(1, len(matched.image)))
    parts = [
        precisions(matched, weights[start : start + step]) for start in range(0, len(weights), step)
    ]
    return np.concatenate(parts).mean(axis=1)


def precisions(matched: Matched, weights: np.ndarray) -> np.ndarray:
    """Return the interpolated precision at ``RECALLS`` at IoU 0.5, shape R,101.

    Arguments as those of ``average_precision``; NaN where there is no true box.
    """
    counts = weights[:, matched.image]
    right = np.cumsum(counts * matched.hits[:, -1], axis=1, dtype=np.float64)
    kept = np.cumsum(counts, axis=1, dtype=np.float64)
    precision = np.divide(right, kept, out=np.zeros_like(right), where=kept > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.hstack([best, np.zeros((len(best), 1))])  # for recalls that are never reached
    true_boxes = (weights @ matched.truth).astype(np.float64)
    rows = [
        line[np.searchsorted(reached / boxes, RECALLS, side="left")]
        if boxes
        else np.full(len(RECALLS), np.nan)
        for line, reached, boxes in zip(best, right, true_boxes, strict=True)
    ]
    return np.stack(rows)


def challenge(matched: Matched, threshold: float) -> np.ndarray:
    """Score each image as the RSNA Pneumonia Detection Challenge 2018 does (its page "Evaluation").

    The score is the mean over ``CHALLENGE`` of hits / (hits + false alarms + misses). An image
    without a true box scores 0 if it has a predicted box, and otherwise does not count.

    Args:
        threshold: smallest confidence of a box that counts.

    Returns:
        Shape N; NaN for images that do not count.
    """
    sure = matched.confidence >= threshold
    predicted = np.bincount(matched.image[sure], minlength=len(matched.truth))[:, None]
    right = _by_image(matched, sure)[:, : len(CHALLENGE)]
    below = predicted + matched.truth[:, None] - right
    scores = np.divide(right, below, out=np.full(right.shape, np.nan), where=below > 0)
    return scores.mean(axis=1)


def best_threshold(matched: Matched) -> float:
    """Return the confidence of ``CANDIDATES`` with the best mean ``challenge`` score.

    Of several equal ones it is the highest.
    """
    once = np.ones((1, len(matched.truth)))
    with np.errstate(invalid="ignore"):
        scores = np.array([_mean(challenge(matched, c), once)[0] for c in CANDIDATES])
    return float(CANDIDATES[len(scores) - 1 - np.nan_to_num(scores, nan=-1.0)[::-1].argmax()])


def evaluate(matched: Matched, threshold: float, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute all metrics of ``NAMES``.

    Args:
        threshold: smallest confidence of a box that counts (average precision: all boxes count).
        weights: how often each image counts, int64, shape R,N.

    Returns:
        Values by metric, shape R; NaN where undefined (precision without any box).
    """
    sure = matched.confidence >= threshold
    predicted = np.bincount(matched.image[sure], minlength=len(matched.truth))
    right = weights @ _by_image(matched, sure)[:, -1]
    kept = weights @ predicted.astype(np.float64)
    true_boxes = weights @ matched.truth.astype(np.float64)
    return {
        "map50": average_precision(matched, weights),
        "map_challenge": _mean(challenge(matched, threshold), weights),
        "precision": _quotient(right, kept),
        "recall": _quotient(right, true_boxes),
    }


def _by_image(matched: Matched, sure: np.ndarray) -> np.ndarray:
    """Count the hits of the boxes ``sure`` (bool, P) by image and limit, float64, shape N,9."""
    counts = np.zeros((len(matched.truth), len(LIMITS)))
    np.add.at(counts, matched.image[sure], matched.hits[sure])
    return counts


def _mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted means (R) of the scores (N) that are not NaN; NaN where all are."""
    defined = ~np.isnan(scores)
    return _quotient(weights @ np.where(defined, scores, 0.0), weights @ defined.astype(np.float64))


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
