"""The verdict on a claim: a measured value and its interval against the accepted values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medscale.evaluate import verdicts

HOLDS, FAILS, OPEN, MISSING = "holds", "does not hold", "not established", "not measured"
ORDER = (HOLDS, FAILS, OPEN, MISSING)
# Claims of equality take the verdict that the paper gives the run (medscale.evaluate.verdicts).
OF_EQUALITY = {
    verdicts.EQUAL: HOLDS,
    verdicts.WITHIN: HOLDS,
    verdicts.WORSE: FAILS,
    verdicts.BETTER: FAILS,
    verdicts.UNSURE: OPEN,
    verdicts.INCONCLUSIVE: OPEN,
}


@dataclass(frozen=True)
class Measured:
    """A measured quantity with its 95 % interval, in the unit of its measure."""

    value: float
    low: float  # NaN where no interval is known
    high: float
    equality: str = ""  # verdict on a difference in accuracy, of ``medscale.evaluate.verdicts``
    note: str = ""
    # size of a difference that a test set of so few patients does not exclude by equal answers
    unseen: float = 0.0

    @classmethod
    def exact(cls, value: float, note: str = "") -> Measured:
        """Return a value without uncertainty: its interval is the value itself."""
        return cls(value, value, value, note=note)

    @classmethod
    def absence(cls, note: str) -> Measured:
        """Return the result of a measurement that is not possible, with the reason."""
        return cls(math.nan, math.nan, math.nan, note=note)


def judge(measured: Measured, low: float | None, high: float | None, *, equality: bool) -> str:
    """Return the verdict on a claim.

    A claim holds where the whole interval is accepted, and does not hold where no value of the
    interval is. Otherwise, and without an interval, it is not established. The interval of few
    patients is too narrow where few of their answers differ. If it includes 0, it therefore counts
    as reaching from ``-unseen`` to ``unseen`` at least.

    Args:
        low, high: lowest and highest accepted value; None for no bound.
        equality: whether the claim is one of equal accuracy.
    """
    if math.isnan(measured.value):
        return MISSING
    if equality:
        return OF_EQUALITY[measured.equality]
    if math.isnan(measured.low) or math.isnan(measured.high):
        return OPEN
    lowest, highest = (-math.inf if low is None else low), (math.inf if high is None else high)
    least, most = measured.low, measured.high
    if least <= 0 <= most:
        least, most = min(least, -measured.unseen), max(most, measured.unseen)
    if lowest <= least and most <= highest:
        return HOLDS
    return FAILS if most < lowest or least > highest else OPEN
