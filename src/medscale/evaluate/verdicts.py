"""Rules of the verdict on a difference in accuracy between a run and its baseline.

A difference is established if its interval excludes zero, the adjusted exact test rejects, and the
difference exceeds the spread over seeds. Equality is established if the whole interval lies within
the margin (``paired.reading``).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medscale.evaluate.paired import APART, APART_WITHIN, OPEN, SAME

EQUAL, WITHIN, INCONCLUSIVE = "equal", "differs, within the margin", "inconclusive"
VERDICTS = {SAME: EQUAL, APART_WITHIN: WITHIN, OPEN: INCONCLUSIVE}
WORSE, BETTER = "lower", "higher"  # the interval excludes zero, and the exact test rejects
# The interval excludes zero, but the exact test does not reject, or the spread over seeds is wide.
UNSURE = "not established"
ERRORS_OF_SEEDS = 2  # standard errors over seeds that an established difference exceeds
ALPHA = 0.05  # of the adjusted exact test


def verdict(reading: str, high: float, p: float, *, beyond: bool) -> str:
    """Return the verdict on a difference: a value of ``VERDICTS``, or WORSE, BETTER, UNSURE.

    Args:
        reading: result of ``paired.reading`` for the interval.
        high: upper end of the interval of run minus baseline.
        p: p-value of the exact test, adjusted by Holm's method.
        beyond: result of ``beyond_seeds``: whether the difference exceeds the spread over seeds.
    """
    if reading in VERDICTS:
        return VERDICTS[reading]
    if not (p < ALPHA and beyond):
        return UNSURE
    return WORSE if high < 0 else BETTER


def beyond_seeds(values: Mapping[int, float], base: Mapping[int, float]) -> bool:
    """Return whether the mean difference by seed exceeds ``ERRORS_OF_SEEDS`` standard errors.

    With fewer than two common seeds there is no standard error; the result is True.

    Args:
        values: accuracy of the run by seed.
        base: accuracy of the baseline by seed.
    """
    changes = np.array([values[seed] - base[seed] for seed in values if seed in base])
    if len(changes) < 2:
        return True
    error = changes.std(ddof=1) / np.sqrt(len(changes))
    return bool(abs(changes.mean()) > ERRORS_OF_SEEDS * error)


def independent_difference(
    score: Mapping[str, float], base: Mapping[str, float]
) -> dict[str, float]:
    """Return the difference of two independent scores: ``mean, low, high``.

    The squares of the half widths of independent intervals add up, as variances do (Zou & Donner,
    Statistics in Medicine 2008).

    Args:
        score, base: two scores, each with ``mean`` and the interval ``low, high``.
    """
    change = score["mean"] - base["mean"]
    low = np.hypot(score["mean"] - score["low"], base["high"] - base["mean"])
    high = np.hypot(score["high"] - score["mean"], base["mean"] - base["low"])
    return {"mean": change, "low": change - float(low), "high": change + float(high)}


assert {*VERDICTS, APART} == {SAME, OPEN, APART, APART_WITHIN}
