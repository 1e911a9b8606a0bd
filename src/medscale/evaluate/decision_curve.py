"""Decision curves: the net benefit of acting on a probability, by threshold probability."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array

from medscale.config.sections import Evaluate, positive_classes
from medscale.evaluate.bootstrap import spread_interval
from medscale.evaluate.replicates import Predictions

THRESHOLDS = np.arange(1, 50) / 50  # threshold probabilities: a patient at or above is treated


def decision_curve(
    test: Predictions, classes: Sequence[str], settings: Evaluate, draw_counts: np.ndarray
) -> pd.DataFrame:
    """Compute decision curves: net benefit by threshold (Vickers & Elkin, Med Decis Making 2006).

    Net benefit is the share of true positives minus that of false positives, weighed by the odds
    of the threshold probability. An image whose probability reaches the threshold is positive.

    Args:
        test: predictions of the test images, with calibrated probabilities if there are any.
        classes: class names. The last of two is positive; more are each compared with the rest.
        settings: prevalence by class; a class without one has the prevalence of the images.
        draw_counts: resamples of the groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        A row for each class and threshold: ``class, threshold, net_benefit`` (mean over
        replicates), ``low, high`` (over patients; NaN where no resample changes the value, or one
        patient is positive or negative), and ``treat_all``, the net benefit of acting without a
        test; that of never acting is 0.
    """
    weights = THRESHOLDS / (1 - THRESHOLDS)
    rows = []
    for code in positive_classes(classes):
        stated_prevalence = settings.prevalence.get(classes[code])
        positive, scores = test.labels == code, test.probabilities[:, :, code]
        sums = _sums(scores, positive, test.groups, draw_counts.shape[1])
        point = _net_benefit([part.sum(axis=0, keepdims=True) for part in sums], stated_prevalence)[
            0
        ]
        resample_values = _net_benefit([draw_counts @ part for part in sums], stated_prevalence)
        patients = min(len(np.unique(test.groups[side])) for side in (positive, ~positive))
        prevalence = positive.mean() if stated_prevalence is None else stated_prevalence
        for number, limit in enumerate(THRESHOLDS):
            low, high = spread_interval(resample_values[:, number], patients)
            rows.append(
                {
                    "class": classes[code],
                    "threshold": limit,
                    "net_benefit": point[number],
                    "low": low,
                    "high": high,
                    "treat_all": prevalence - (1 - prevalence) * weights[number],
                }
            )
    return pd.DataFrame(rows)


def _sums(
    scores: np.ndarray, positive: np.ndarray, groups: np.ndarray, size: int
) -> list[np.ndarray]:
    """Return sums by group: true and false positives (G,T), all positives and negatives (G,1)."""
    positive_calls = np.mean([seed[:, None] >= THRESHOLDS for seed in scores], axis=0)
    ones = np.ones((len(positive), 1))
    images = np.arange(len(groups))
    by_group = coo_array((np.ones(len(groups)), (groups, images)), (size, len(groups))).tocsr()
    parts = [
        part[:, None] * values
        for values in (positive_calls, ones)
        for part in (positive, ~positive)
    ]
    return [np.asarray(by_group @ part) for part in parts]


def _net_benefit(sums: Sequence[np.ndarray], stated_prevalence: float | None) -> np.ndarray:
    """Return the net benefit of sums from ``_sums`` on R resamples, shape R,T."""
    true, false, positives, negatives = sums
    images = positives + negatives
    weights = THRESHOLDS / (1 - THRESHOLDS)
    if stated_prevalence is None:
        return np.asarray((true - weights * false) / images)
    with np.errstate(invalid="ignore"):  # undefined in a resample without positives or negatives
        return np.asarray(
            stated_prevalence * true / positives
            - (1 - stated_prevalence) * weights * false / negatives
        )
