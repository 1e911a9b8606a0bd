"""Metrics of predicted boxes: overlap, matching, average precision and the RSNA challenge score."""

from dataclasses import dataclass

import numpy as np

from medscale.evaluate.bootstrap import BLOCK_SIZE, ratio

NAMES = {
    "map50": "mAP at IoU 0.5",
    "map_challenge": "challenge mAP (IoU 0.4–0.75)",
    "precision": "precision (IoU 0.5)",
    "recall": "recall (IoU 0.5)",
}
CHALLENGE = np.linspace(0.4, 0.75, 8)
# A hit needs an overlap above a threshold in the challenge, and of at least 0.5 in COCO's metric.
LIMITS = np.append(np.nextafter(CHALLENGE, 1), 0.5)
RECALLS = np.linspace(0, 1, 101)
CANDIDATES = np.arange(1, 100) / 100  # confidence thresholds


@dataclass(frozen=True)
class BoxMatches:
    """The P predicted boxes of one replicate in a split of N images, matched to the true boxes.

    Predicted boxes are in descending order of confidence.
    """

    truth: np.ndarray  # number of true boxes of each image, int64, shape N
    image: np.ndarray  # position of the image of each predicted box, 0..N-1, int64, shape P
    confidence: np.ndarray  # confidence of each predicted box, 0 to 1, shape P
    # whether each predicted box hits a true box at each of ``LIMITS``, bool, shape P,9
    hits: np.ndarray


def overlap(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (x, y, width, height): P,4 and G,4 to P,G."""
    predicted, true = predicted[:, None], true[None]
    low = np.maximum(predicted[..., :2], true[..., :2])
    high = np.minimum(predicted[..., :2] + predicted[..., 2:], true[..., :2] + true[..., 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    return shared / (predicted[..., 2:].prod(axis=-1) + true[..., 2:].prod(axis=-1) - shared)


def hits(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return which predicted boxes of one image hit a true box.

    In descending order of confidence, each box takes the true box that it overlaps most among
    those that no box has taken (the greedy matching of COCO's evaluation).

    Args:
        predicted: boxes (x, y, width, height), the most confident first, shape P,4.
        true: true boxes in the same form, shape G,4.

    Returns:
        Whether each box hits at each of ``LIMITS``, bool, shape P,9.
    """
    is_hit = np.zeros((len(predicted), len(LIMITS)), bool)
    if not len(true):
        return is_hit
    overlaps = overlap(predicted, true)
    free = np.ones((len(LIMITS), len(true)), bool)
    limits = np.arange(len(LIMITS))
    for number in np.flatnonzero(overlaps.max(axis=1) >= LIMITS.min()):
        candidates = np.where(free, overlaps[number], -1.0)
        best = candidates.argmax(axis=1)
        is_hit[number] = candidates[limits, best] >= LIMITS
        free[limits[is_hit[number]], best[is_hit[number]]] = False
    return is_hit


def average_precision(matches: BoxMatches, weights: np.ndarray) -> np.ndarray:
    """Compute the average precision at an intersection over union of 0.5.

    This is the mean of the interpolated precision at 101 recalls (Lin et al., ECCV 2014). With one
    class it equals the mAP50 of COCO's evaluation.

    Args:
        weights: how often each image counts, int64, shape R,N.

    Returns:
        Shape R; NaN where no image that counts has a true box.
    """
    step = max(1, BLOCK_SIZE // max(1, len(matches.image)))
    parts = [
        precisions(matches, weights[start : start + step]) for start in range(0, len(weights), step)
    ]
    return np.concatenate(parts).mean(axis=1)


def precisions(matches: BoxMatches, weights: np.ndarray) -> np.ndarray:
    """Return the interpolated precision at ``RECALLS`` at IoU 0.5, shape R,101.

    The arguments are those of ``average_precision``. NaN if no true box counts.
    """
    counts = weights[:, matches.image]
    hit_counts = np.cumsum(counts * matches.hits[:, -1], axis=1, dtype=np.float64)
    box_counts = np.cumsum(counts, axis=1, dtype=np.float64)
    precision = ratio(hit_counts, box_counts, undefined=0.0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.hstack([best, np.zeros((len(best), 1))])  # for recalls that are never reached
    true_boxes = (weights @ matches.truth).astype(np.float64)
    rows = [
        line[np.searchsorted(hits_so_far / boxes, RECALLS, side="left")]
        if boxes
        else np.full(len(RECALLS), np.nan)
        for line, hits_so_far, boxes in zip(best, hit_counts, true_boxes, strict=True)
    ]
    return np.stack(rows)


def challenge(matches: BoxMatches, threshold: float) -> np.ndarray:
    """Score each image by the rule of the RSNA Pneumonia Detection Challenge 2018.

    The source is the challenge's page "Evaluation" on Kaggle. The score is the mean over
    ``CHALLENGE`` of hits / (hits + false alarms + misses). An image without a true box scores 0 if
    it has a predicted box, and otherwise does not count.

    Args:
        threshold: smallest confidence of a box that counts.

    Returns:
        Shape N; NaN for images that do not count.
    """
    is_counted = matches.confidence >= threshold
    predicted = np.bincount(matches.image[is_counted], minlength=len(matches.truth))[:, None]
    hit_counts = _by_image(matches, is_counted)[:, : len(CHALLENGE)]
    return ratio(hit_counts, predicted + matches.truth[:, None] - hit_counts).mean(axis=1)


def best_threshold(matches: BoxMatches) -> float:
    """Return the confidence of ``CANDIDATES`` with the best mean ``challenge`` score.

    Of several with equal scores, return the highest.
    """
    once = np.ones((1, len(matches.truth)))
    with np.errstate(invalid="ignore"):
        scores = np.array([_mean(challenge(matches, c), once)[0] for c in CANDIDATES])
    return float(CANDIDATES[len(scores) - 1 - np.nan_to_num(scores, nan=-1.0)[::-1].argmax()])


def evaluate(matches: BoxMatches, threshold: float, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute all metrics of ``NAMES``.

    Args:
        threshold: smallest confidence of a box that counts (average precision: all boxes count).
        weights: how often each image counts, int64, shape R,N.

    Returns:
        Values by metric, shape R; NaN where undefined, such as a precision without any box.
    """
    is_counted = matches.confidence >= threshold
    predicted = np.bincount(matches.image[is_counted], minlength=len(matches.truth))
    hit_counts = weights @ _by_image(matches, is_counted)[:, -1]
    box_counts = weights @ predicted.astype(np.float64)
    true_boxes = weights @ matches.truth.astype(np.float64)
    return {
        "map50": average_precision(matches, weights),
        "map_challenge": _mean(challenge(matches, threshold), weights),
        "precision": ratio(hit_counts, box_counts),
        "recall": ratio(hit_counts, true_boxes),
    }


def _by_image(matches: BoxMatches, is_counted: np.ndarray) -> np.ndarray:
    """Count the hits of the counted boxes (bool, P) by image and limit, float64, shape N,9."""
    counts = np.zeros((len(matches.truth), len(LIMITS)))
    np.add.at(counts, matches.image[is_counted], matches.hits[is_counted])
    return counts


def _mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted means (R) of the scores (N) that are not NaN; NaN where all are."""
    defined = ~np.isnan(scores)
    return ratio(weights @ np.where(defined, scores, 0.0), weights @ defined.astype(np.float64))
