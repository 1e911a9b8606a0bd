"""Operating points: sensitivity at a given specificity, with thresholds from validation images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.evaluate.bootstrap import interval
from medscale.evaluate.replicates import Predicted


def threshold(scores: np.ndarray, specificity: float) -> float:
    """Return the smallest score that at most a share ``1 - specificity`` of the scores exceed.

    An image is called positive when its score is greater than the threshold.

    Args:
        scores: probabilities of the class for validation images of other classes, shape N.
        specificity: share of these images that must lie at or below the threshold, 0 to 1.
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
    """Compute sensitivity and specificity on the test images at thresholds from validation.

    Each replicate has its own threshold. Intervals are over patients, with fixed thresholds.

    Args:
        classes: class names; of two the last is positive, of more each against the rest.
        wanted: specificities that the thresholds give on the validation split.
        drawn: resamples of the test split's groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        A row for each class and specificity: ``class, wanted, threshold`` (mean over seeds; and
        ``threshold_<n>`` of the n-th replicate), ``positives, negatives`` (test images), and
        ``<rate>, <rate>_low, <rate>_high`` for both rates; NaN where a class or the
        validation split has no images.
    """
    codes = [len(classes) - 1] if len(classes) == 2 else range(len(classes))
    rows = []
    for code in codes:
        positive, negatives = test.labels == code, val.labels != code
        for specificity in wanted:
            limits = [threshold(odds[negatives, code], specificity) for odds in val.probabilities]
            pairs = zip(test.probabilities, limits, strict=True)
            called = np.stack([odds[:, code] > limit for odds, limit in pairs])
            row = {
                "class": classes[code],
                "wanted": specificity,
                "threshold": float(np.mean(limits)),
            }
            row |= {f"threshold_{number}": limit for number, limit in enumerate(limits, start=1)}
            row |= {"positives": int(positive.sum()), "negatives": int((~positive).sum())}
            undefined = np.full(len(positive), np.nan)
            hits = called.mean(axis=0) if np.isfinite(limits).all() else undefined
            row |= _rate("sensitivity", hits, positive, test.groups, drawn)
            row |= _rate("specificity", 1 - hits, ~positive, test.groups, drawn)
            rows.append(row)
    return pd.DataFrame(rows)


def _rate(
    name: str, right: np.ndarray, part: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> dict[str, float | None]:
    """Return the mean over the images ``part`` (bool, N) of ``right`` (0..1), with its interval."""
    size = drawn.shape[1]
    above = drawn @ np.bincount(groups[part], right[part], size)
    below = drawn @ np.bincount(groups[part], minlength=size).astype(np.float64)
    low, high = interval(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))
    mean = float(right[part].mean()) if part.any() else float("nan")
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
