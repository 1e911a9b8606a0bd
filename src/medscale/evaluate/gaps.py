"""Subgroups at the operating points: sensitivity, specificity, and gaps to all other images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.config.sections import Evaluate
from medscale.evaluate.bootstrap import interval, with_interval
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
    undefined = np.nan, np.full(len(draw_counts), np.nan)
    lines = []
    for by, part, in_subgroup in parts(rows, settings):
        for row, code, positive_calls in calls(test, limits, classes):
            head = {"by": by, "part": part, "class": row["class"], "wanted": row["wanted"]}
            for name, hits, relevant in right_calls(positive_calls, test.labels == code):
                sides = (relevant & in_subgroup, relevant & ~in_subgroup)
                (value, values), (outside, outside_values) = (
                    rate(hits, side, test.groups, draw_counts)
                    if side.sum() >= settings.smallest
                    else undefined
                    for side in sides
                )
                low, high = interval(values)
                line = {"rate": name, "images": int(sides[0].sum())}
                line |= {"value": value, "low": low, "high": high}
                gap = interval(values - outside_values)
                lines.append(head | line | with_interval("gap", value - outside, gap))
    return pd.DataFrame(lines, columns=COLUMNS)
