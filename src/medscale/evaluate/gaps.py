"""Subgroups at the operating points: sensitivity, specificity, and gaps to all other images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.config.sections import Evaluate
from medscale.evaluate.bootstrap import interval
from medscale.evaluate.operating import calls, rate
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
            positive = test.labels == code
            head = {"by": by, "part": part, "class": row["class"], "wanted": row["wanted"]}
            for name, hits, relevant in (
                ("sensitivity", positive_calls, positive),
                ("specificity", 1 - positive_calls, ~positive),
            ):
                sides = (relevant & in_subgroup, relevant & ~in_subgroup)
                line = {"rate": name, "images": int(sides[0].sum())}
                has_enough = [int(side.sum()) >= settings.smallest for side in sides]
                subgroup, complement = (
                    rate(hits, side, test.groups, draw_counts) for side in sides
                )
                lines.append(head | line | _difference(subgroup, complement, has_enough))
    return pd.DataFrame(lines, columns=COLUMNS)


def _difference(
    subgroup: tuple[float, np.ndarray],
    complement: tuple[float, np.ndarray],
    has_enough: Sequence[bool],
) -> dict[str, float]:
    """Return the rate of a subgroup and its gap to that of all other images, with intervals.

    ``subgroup`` and ``complement`` are each a rate and its values on the resamples. ``has_enough``
    states for each of them whether it has enough images.
    """
    value, resample_values = subgroup
    complement_value, complement_values = complement
    gap, gaps_of_resamples = value - complement_value, resample_values - complement_values
    return _interval("value", value, resample_values, has_enough[0]) | _interval(
        "gap", gap, gaps_of_resamples, all(has_enough)
    )


def _interval(
    name: str, value: float, resample_values: np.ndarray, has_enough: bool
) -> dict[str, float]:
    low, high = interval(resample_values) if has_enough else (np.nan, np.nan)
    ends = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return {name: value if has_enough else np.nan, ends[0]: low, ends[1]: high}
