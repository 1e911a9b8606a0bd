"""Calibration slope and intercept: a logistic regression of the outcome on the predicted logit."""

from collections.abc import Callable

import numpy as np
from scipy.special import expit

BLOCK_SIZE = 500_000  # weights in memory at once: 4 MB, which fit into a processor's cache
STEPS = 60  # limit of Newton's method; about 8 steps suffice if a maximum exists
# Limit of a step: where the likelihood is almost flat, Newton's step would be far too long.
LARGEST_STEP = 2.0
TOLERANCE = 1e-9  # change that counts as convergence, relative to parameters above 1
SMALLEST_OVERLAP = 1e-9  # of the logits of both outcomes; a smaller one could be due to rounding


def recalibration(
    outcome: np.ndarray, logits: np.ndarray, groups: np.ndarray, draw_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute calibration slope and intercept on every resample (Cox 1958).

    The slope is the coefficient of a logistic regression of the outcome on the logit. Below 1, the
    predictions are too extreme; below 0, they run against the outcome. The intercept is fitted with
    a slope of 1 (calibration in the large). Below 0, the probabilities are too high (Van Calster et
    al., BMC Medicine 2019).

    Args:
        outcome: whether the predicted event occurred, bool, shape N.
        logits: logits of its predicted probability, shape N.
        groups: group code of each image, shape N.
        draw_counts: resamples of the groups, shape R,G.

    Returns:
        Slopes and intercepts, each of shape R; NaN if no finite value maximizes the likelihood, for
        instance if the logits separate the outcomes.
    """
    step = max(1, BLOCK_SIZE // max(len(logits), 1))
    # The steps of Newton's method are limited, and so is the slope that they can reach. A high
    # temperature makes logits almost equal and their slope large. Logits with a standard deviation
    # below 1 are therefore scaled to 1. Those with a larger one are not, as their slope would grow.
    spread = min(logits.std(), 1.0) or 1.0
    standard = (logits - logits.mean()) / spread
    all_images = draw_counts.sum(axis=0, keepdims=True)[:, groups].astype(np.float64)
    start = _fit(outcome, standard, all_images, np.zeros((1, 2)))[0]
    start = start if np.isfinite(start).all() else np.zeros(2)
    blocks = []
    for first in range(0, len(draw_counts), step):
        weights = draw_counts[first : first + step][:, groups].astype(np.float64)
        slopes = _fit(outcome, standard, weights, np.tile(start, (len(weights), 1)))[:, 1]
        has_slope = _overlap(outcome, logits, weights)
        slopes[~has_slope] = np.nan
        # From the parameters of all images, Newton's method can leave the region that it converges
        # from, if these images almost separate the outcomes.
        again = np.flatnonzero(has_slope & np.isnan(slopes))
        slopes[again] = _fit(outcome, standard, weights[again], np.zeros((len(again), 2)))[:, 1]
        blocks.append((slopes / spread, _fit_intercept(outcome, logits, weights)))
    slopes, intercepts = zip(*blocks, strict=True)
    return np.concatenate(slopes), np.concatenate(intercepts)


def _overlap(outcome: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return whether a finite slope maximizes the likelihood of each resample, bool, shape R.

    A maximum exists if the logits of events and non-events overlap (Albert & Anderson, Biometrika
    1984). Newton's method cannot decide this: if the likelihood is almost flat, rounding decides
    whether it converges.
    """
    is_drawn = weights > 0
    (low_event, high_event), (low_nonevent, high_nonevent) = (
        (
            np.where(is_drawn & in_group, logits, np.inf).min(axis=1),
            np.where(is_drawn & in_group, logits, -np.inf).max(axis=1),
        )
        for in_group in (outcome, ~outcome)
    )
    return np.asarray(
        np.minimum(high_nonevent - low_event, high_event - low_nonevent) > SMALLEST_OVERLAP
    )


def _fit(
    outcome: np.ndarray, logits: np.ndarray, weights: np.ndarray, parameters: np.ndarray
) -> np.ndarray:
    """Return intercept and slope of each resample, shape R,2; ``parameters``: starting values."""
    design = np.column_stack([np.ones(len(logits)), logits])
    products = np.column_stack([np.ones(len(logits)), logits, logits**2])

    def change(current: np.ndarray, weight: np.ndarray) -> np.ndarray:
        expected = expit(current @ design.T)
        gradient = (weight * (outcome - expected)) @ design
        h00, h01, h11 = ((weight * expected * (1 - expected)) @ products).T
        inverse = np.stack([h11, -h01, -h01, h00], axis=1) / (h00 * h11 - h01**2)[:, None]
        return np.asarray(np.einsum("rij,rj->ri", inverse.reshape(-1, 2, 2), gradient))

    return _newton(change, outcome, weights, parameters)


def _fit_intercept(outcome: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the intercept of each resample at a slope of 1, shape R."""

    def change(current: np.ndarray, weight: np.ndarray) -> np.ndarray:
        expected = expit(current + logits)
        gradient = (weight * (outcome - expected)).sum(axis=1, keepdims=True)
        return gradient / (weight * expected * (1 - expected)).sum(axis=1, keepdims=True)

    return _newton(change, outcome, weights, np.zeros((len(weights), 1)))[:, 0]


def _newton(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray],
    outcome: np.ndarray,
    weights: np.ndarray,
    parameters: np.ndarray,
) -> np.ndarray:
    """Return the parameters (R,P) to which Newton's method converges; NaN if it does not.

    Args:
        change: function of parameters (r,P) and weights (r,N) that returns a step (r,P).
        outcome: bool, shape N.
        weights: of each image in each resample, shape R,N.
        parameters: starting values, shape R,P.
    """
    result = np.full(parameters.shape, np.nan)
    events = weights @ outcome
    # If all images of a resample have the same outcome, the likelihood has no finite maximum.
    active = np.flatnonzero((events > 0) & (events < weights.sum(axis=1)))
    for _ in range(STEPS):
        if not len(active):
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            step = change(parameters[active], weights[active])
            size = np.abs(step).max(axis=1, keepdims=True)
            parameters[active] += step / np.maximum(size / LARGEST_STEP, 1)
        scale = np.maximum(np.abs(parameters[active]).max(axis=1), 1)
        converged = size[:, 0] <= TOLERANCE * scale
        result[active[converged]] = parameters[active[converged]]
        active = active[~converged & np.isfinite(size[:, 0])]
    return result
