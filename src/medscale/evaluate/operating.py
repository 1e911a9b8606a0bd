"""Operating points: the sensitivity at a stated specificity, with the threshold chosen on validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.evaluate.bootstrap import interval
from medscale.evaluate.replicates import Predicted

RATES = ("sensitivity", "specificity")


def threshold(scores: np.ndarray, specificity: float) -> float:
    """The smallest score above which at most a share ``1 - specificity`` of these negative images lies.

    An image is called positive when its score is greater than the threshold.

    Args:
        scores: probabilities of the class, of validation images that are not of it, shape N.
        specificity: wanted share at or below the threshold.
    """
    if not len(scores):
        return float("nan")
    needed = int(np.ceil(specificity * len(scores) - 1e-9))
    return float(np.sort(scores)[max(needed, 1) - 1])


def operating_points(
    val: Predicted,
    test: Predicted,
    classes: Sequence[str],
    wanted: Sequence[float],
    drawn: np.ndarray,
) -> pd.DataFrame:
    """Sensitivity and specificity on the test images at thresholds that give each wanted specificity in validation.

    Each replicate has its own threshold. Intervals are over patients, with the thresholds as they are.

    Args:
        val, test: predictions of the two splits.
        classes: names; with two, the last is the positive one, with more each stands against the rest.
        wanted: specificities.
        drawn: resamples of the test split's groups, from ``bootstrap.draw``.

    Returns:
        A row a class and wanted specificity: ``class, wanted, threshold`` (mean over seeds; and ``threshold_<n>`` for
        the n-th replicate), ``positives, negatives`` (test images), and ``<rate>, <rate>_low, <rate>_high`` for each
        of ``RATES``; NaN where a class or the validation split has no images.
    """
    codes = [len(classes) - 1] if len(classes) == 2 else range(len(classes))
    rows = []
    for code in codes:
        positive, negatives = test.labels == code, val.labels != code
        for specificity in wanted:
            limits = [threshold(odds[negatives, code], specificity) for odds in val.probabilities]
            called = np.stack(
                [odds[:, code] > at for odds, at in zip(test.probabilities, limits, strict=True)]
            )
            row = {
                "class": classes[code],
                "wanted": specificity,
                "threshold": float(np.mean(limits)),
            }
            row |= {f"threshold_{number}": at for number, at in enumerate(limits, start=1)}
            row |= {"positives": int(positive.sum()), "negatives": int((~positive).sum())}
            hits = (
                called.mean(axis=0) if np.isfinite(limits).all() else np.full(len(positive), np.nan)
            )
            row |= _rate("sensitivity", hits, positive, test.groups, drawn)
            row |= _rate("specificity", 1 - hits, ~positive, test.groups, drawn)
            rows.append(row)
    return pd.DataFrame(rows)


def _rate(
    name: str, right: np.ndarray, of: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> dict[str, float | None]:
    """Share of the images ``of`` that are right (0..1, mean over seeds), with its bootstrap interval."""
    size = drawn.shape[1]
    above = drawn @ np.bincount(groups[of], right[of], size)
    below = drawn @ np.bincount(groups[of], minlength=size).astype(np.float64)
    low, high = interval(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))
    mean = float(right[of].mean()) if of.any() else float("nan")
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
