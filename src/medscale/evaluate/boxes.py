"""Boxes against boxes: overlap, matching, average precision, and the score of the RSNA challenge; with weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medscale.evaluate.bootstrap import CELLS

NAMES = {
    "map50": "mAP at IoU 0.5",
    "map_challenge": "challenge mAP (IoU 0.4–0.75)",
    "precision": "precision (IoU 0.5)",
    "recall": "recall (IoU 0.5)",
}
CHALLENGE = np.linspace(0.4, 0.75, 8)  # a hit is above these, in COCO's measure at or above 0.5
LIMITS = np.append(np.nextafter(CHALLENGE, 1), 0.5)
RECALLS = np.linspace(0, 1, 101)
CANDIDATES = np.arange(1, 100) / 100


@dataclass(frozen=True)
class Matched:
    """One replicate's boxes in the images of a split, matched to the true ones.

    Attributes:
        truth: true boxes an image, int64, shape N.
        image: number of the image of each predicted box, most confident box first, int64, shape P.
        confidence: of each, shape P.
        hits: whether it hits a true box at each of ``LIMITS``, bool, shape P,9.
    """

    truth: np.ndarray
    image: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray


def overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (x, y, width, height), shapes P,4 and G,4 to P,G."""
    ours, theirs = ours[:, None], theirs[None]
    low = np.maximum(ours[..., :2], theirs[..., :2])
    high = np.minimum(ours[..., :2] + ours[..., 2:], theirs[..., :2] + theirs[..., 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    return shared / (ours[..., 2:].prod(axis=-1) + theirs[..., 2:].prod(axis=-1) - shared)


def hits(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Which boxes of one image hit: in order of confidence each takes the free true box that it overlaps most.

    Args:
        predicted: most confident first, shape P,4.
        true: shape G,4.

    Returns:
        bool, shape P,9: at each of ``LIMITS``.
    """
    found = np.zeros((len(predicted), len(LIMITS)), bool)
    if not len(true):
        return found
    shares = overlap(predicted, true)
    free = np.ones((len(LIMITS), len(true)), bool)
    at = np.arange(len(LIMITS))
    for number in np.flatnonzero(shares.max(axis=1) >= LIMITS.min()):
        open_ = np.where(free, shares[number], -1.0)
        best = open_.argmax(axis=1)
        found[number] = open_[at, best] >= LIMITS
        free[at[found[number]], best[found[number]]] = False
    return found


def average_precision(matched: Matched, weights: np.ndarray) -> np.ndarray:
    """Average precision at IoU 0.5: mean of the interpolated precision at 101 recalls (Lin et al., ECCV 2014).

    With one class this is mAP50 as COCO's evaluation gives it.

    Args:
        matched: the boxes.
        weights: how often each image counts, int64, shape R,N.

    Returns:
        Shape R; NaN where no image that counts has a true box.
    """
    step = max(1, CELLS // max(1, len(matched.image)))
    parts = [
        precisions(matched, weights[start : start + step]) for start in range(0, len(weights), step)
    ]
    return np.concatenate(parts).mean(axis=1)


def precisions(matched: Matched, weights: np.ndarray) -> np.ndarray:
    """Interpolated precision at ``RECALLS`` at IoU 0.5, shape R,101; NaN where there is no true box."""
    each = weights[:, matched.image]
    right = np.cumsum(each * matched.hits[:, -1], axis=1, dtype=np.float64)
    kept = np.cumsum(each, axis=1, dtype=np.float64)
    precision = np.divide(right, kept, out=np.zeros_like(right), where=kept > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.hstack([best, np.zeros((len(best), 1))])  # a recall that is never reached
    there = (weights @ matched.truth).astype(np.float64)
    rows = [
        line[np.searchsorted(reached / boxes, RECALLS, side="left")]
        if boxes
        else np.full(len(RECALLS), np.nan)
        for line, reached, boxes in zip(best, right, there, strict=True)
    ]
    return np.stack(rows)


def challenge(matched: Matched, threshold: float) -> np.ndarray:
    """Score of each image in the RSNA Pneumonia Detection Challenge 2018 for boxes of at least ``threshold``.

    The mean over ``CHALLENGE`` of hits / (hits + false alarms + misses). An image without a true box scores 0 where
    anything is predicted in it; where nothing is, it does not count (the challenge's page, "Evaluation").

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
    """The confidence of ``CANDIDATES`` with the best mean ``challenge`` score; the highest of several."""
    with np.errstate(invalid="ignore"):
        scores = np.array(
            [_mean(challenge(matched, c), np.ones((1, len(matched.truth))))[0] for c in CANDIDATES]
        )
    return float(CANDIDATES[len(scores) - 1 - np.nan_to_num(scores, nan=-1.0)[::-1].argmax()])


def evaluate(matched: Matched, threshold: float, weights: np.ndarray) -> dict[str, np.ndarray]:
    """All of ``NAMES`` with boxes of at least ``threshold`` (average precision: with all boxes).

    Args:
        matched: the boxes.
        threshold: confidence.
        weights: how often each image counts, int64, shape R,N.

    Returns:
        Values by metric, shape R; NaN where undefined (precision without any box).
    """
    sure = matched.confidence >= threshold
    right = weights @ _by_image(matched, sure)[:, -1]
    kept = weights @ np.bincount(matched.image[sure], minlength=len(matched.truth)).astype(
        np.float64
    )
    there = weights @ matched.truth.astype(np.float64)
    return {
        "map50": average_precision(matched, weights),
        "map_challenge": _mean(challenge(matched, threshold), weights),
        "precision": np.divide(right, kept, out=np.full(len(right), np.nan), where=kept > 0),
        "recall": np.divide(right, there, out=np.full(len(right), np.nan), where=there > 0),
    }


def _by_image(matched: Matched, sure: np.ndarray) -> np.ndarray:
    """Hits of the boxes that are ``sure`` by image and limit, float64, shape N,9."""
    counts = np.zeros((len(matched.truth), len(LIMITS)))
    np.add.at(counts, matched.image[sure], matched.hits[sure])
    return counts


def _mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means (R) of an image's scores (N), those that are NaN left out; NaN where none is left."""
    counts = ~np.isnan(scores)
    below = weights @ counts.astype(np.float64)
    above = weights @ np.where(counts, scores, 0.0)
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
