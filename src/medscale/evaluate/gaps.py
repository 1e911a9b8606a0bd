"""Subgroups at the operating points: sensitivity, specificity, and gaps to all other images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.config.sections import Evaluate
from medscale.evaluate.bootstrap import interval
from medscale.evaluate.operating import calls, rate
from medscale.evaluate.replicates import Predicted
from medscale.evaluate.subgroups import parts

COLUMNS = ["by", "part", "class", "wanted", "rate", "images", "value", "low", "high"]
COLUMNS += ["gap", "gap_low", "gap_high"]


def gaps(
    test: Predicted,
    rows: pd.DataFrame,
    limits: pd.DataFrame,
    classes: Sequence[str],
    settings: Evaluate,
    drawn: np.ndarray,
) -> pd.DataFrame:
    """Compare each subgroup with all other images at the operating points.

    Equal sensitivities and specificities are equalized odds (Hardt et al., NeurIPS 2016). Each
    resample draws the same patients for the subgroup and the other images.

    Args:
        test: predictions of the test images.
        rows: the index's rows of the same images in the same order.
        limits: the thresholds, from ``operating.thresholds``.
        classes: class names in the order of their codes.
        settings: columns, and the smallest number of images that a rate is computed of.
        drawn: resamples of the groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        A row for each subgroup, operating point and rate (sensitivity, specificity), with the
        columns ``COLUMNS``: ``images`` that the rate is of, ``value`` with its interval, and
        ``gap``, the value minus that of all other images, with its interval. NaN where the
        subgroup, or for the gap the other images, have fewer than ``settings.smallest`` of them.
    """
    drawn = drawn.astype(np.float64)  # once instead of in every product
    lines = []
    for by, part, selected in parts(rows, settings):
        for row, code, positive_calls in calls(test, limits, classes):
            positive = test.labels == code
            head = {"by": by, "part": part, "class": row["class"], "wanted": row["wanted"]}
            for name, hits, relevant in (
                ("sensitivity", positive_calls, positive),
                ("specificity", 1 - positive_calls, ~positive),
            ):
                subgroup, complement = relevant & selected, relevant & ~selected
                line = {"rate": name, "images": int(subgroup.sum())}
                value, resampled = rate(hits, subgroup, test.groups, drawn)
                complement_value, complement_resampled = rate(hits, complement, test.groups, drawn)
                enough = [int(side.sum()) >= settings.smallest for side in (subgroup, complement)]
                line |= _interval("value", value, resampled, enough[0])
                line |= _interval(
                    "gap", value - complement_value, resampled - complement_resampled, all(enough)
                )
                lines.append(head | line)
    return pd.DataFrame(lines, columns=COLUMNS)


def largest(table: pd.DataFrame) -> pd.DataFrame:
    """Return the largest difference between the subgroups of a column, for each rate.

    Args:
        table: from ``gaps``.

    Returns:
        ``by, class, wanted, rate, lowest, highest`` (subgroups) and ``difference`` of their
        values, for columns of two evaluated subgroups or more.
    """
    rows = []
    for keys, group in table.dropna(subset=["value"]).groupby(
        ["by", "class", "wanted", "rate"], sort=False
    ):
        if len(group) > 1:
            values = group["value"].to_numpy()
            low, high = group.iloc[values.argmin()], group.iloc[values.argmax()]
            row = dict(zip(("by", "class", "wanted", "rate"), keys, strict=True))
            row |= {"lowest": low["part"], "highest": high["part"]}
            rows.append(row | {"difference": high["value"] - low["value"]})
    columns = ["by", "class", "wanted", "rate", "lowest", "highest", "difference"]
    return pd.DataFrame(rows, columns=columns)


def _interval(name: str, value: float, resampled: np.ndarray, enough: bool) -> dict[str, float]:
    low, high = interval(resampled) if enough else (np.nan, np.nan)
    ends = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return {name: value if enough else np.nan, ends[0]: low, ends[1]: high}
