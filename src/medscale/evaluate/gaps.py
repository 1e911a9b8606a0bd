"""Subgroups at the operating points: sensitivity, specificity, and gaps to all other images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from medscale.config.sections import Evaluate
from medscale.evaluate.bootstrap import interval, score_interval, spread_interval, with_interval
from medscale.evaluate.operating import calls, rate, right_calls
from medscale.evaluate.replicates import Predictions
from medscale.evaluate.subgroups import parts

COLUMNS = ["by", "part", "class", "wanted", "rate", "images", "value", "low", "high"]
COLUMNS += ["gap", "gap_low", "gap_high"]


def gaps(
    test: Predictions,
    rows: pd.DataFrame,
    limits: pd.DataFrame,
    classes: Sequence[str],
    settings: Evaluate,
    draw_counts: np.ndarray,
) -> pd.DataFrame:
    """Compare each subgroup with all other images at the operating points.

    Equal sensitivities and specificities are equalized odds (Hardt et al., NeurIPS 2016). Each
    resample draws the same patients for the subgroup and the other images.

    Args:
        test: predictions of the test images.
        rows: rows of the index, of the same images in the same order.
        limits: thresholds from ``operating.thresholds``.
        classes: class names in the order of their codes.
        settings: columns that form subgroups, and the smallest number of images for a rate.
        draw_counts: resamples of the groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        One row for each subgroup, operating point and rate (sensitivity, specificity), with the
        columns ``COLUMNS``: ``images``, the denominator of the rate; ``value`` with its interval;
        and ``gap``, the value minus that of all other images, with its interval. A value is NaN if
        its denominator is below ``settings.smallest``; a gap also if that of the other images is.
    """
    draw_counts = draw_counts.astype(np.float64)  # once instead of in every product
    lines = []
    for by, part, in_subgroup in parts(rows, settings):
        for row, code, positive_calls in calls(test, limits, classes):
            head = {"by": by, "part": part, "class": row["class"], "wanted": row["wanted"]}
            for name, hits, relevant in right_calls(positive_calls, test.labels == code):
                own, other = (
                    _rate(hits, side, test.groups, draw_counts, settings.smallest)
                    for side in (relevant & in_subgroup, relevant & ~in_subgroup)
                )
                low, high = own.interval()
                line = {"rate": name, "images": int((relevant & in_subgroup).sum())}
                line |= {"value": own.value, "low": low, "high": high}
                line |= with_interval("gap", own.value - other.value, gap_interval(own, other))
                lines.append(head | line)
    return pd.DataFrame(lines, columns=COLUMNS)


class Rate(NamedTuple):
    """A rate among some images."""

    value: float
    resamples: np.ndarray  # its value on each resample, shape R
    patients: int

    def interval(self) -> tuple[float, float]:
        """Return the interval of the rate."""
        return score_interval(self.resamples, self.patients)

    def varies(self) -> bool:
        """Return whether resamples differ; they do not if all 15 of 15 answers are right."""
        return not math.isnan(spread_interval(self.resamples, self.patients)[0])


def _rate(
    hits: np.ndarray, side: np.ndarray, groups: np.ndarray, draw_counts: np.ndarray, fewest: int
) -> Rate:
    """Return the rate among the images of ``side`` (bool, N); NaN for less than ``fewest``."""
    if side.sum() < fewest:
        return Rate(np.nan, np.full(len(draw_counts), np.nan), 0)
    return Rate(*rate(hits, side, groups, draw_counts), len(np.unique(groups[side])))


def gap_interval(own: Rate, other: Rate) -> tuple[float, float]:
    """Return the interval of the difference of two rates.

    The bootstrap sees no uncertainty of a rate that does not vary. Then the distances to the ends
    of both intervals are added in squares (Newcombe, Statistics in Medicine 1998).
    """
    if own.varies() and other.varies():
        return interval(own.resamples - other.resamples)
    (low, high), (other_low, other_high) = own.interval(), other.interval()
    below = math.hypot(own.value - low, other_high - other.value)
    above = math.hypot(high - own.value, other.value - other_low)
    difference = own.value - other.value
    return difference - below, difference + above
