"""The check of planned claims against the files of a study: a verdict for each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from medscale.report.claims.measures import MEASURES
from medscale.report.claims.planned import Planned
from medscale.report.claims.quantities import Files, measure
from medscale.report.claims.statements import PAPER
from medscale.report.claims.verdicts import FAILS, Measured, judge


def check(claim: Planned, files: Files, *, run_tests: bool = False) -> dict[str, Any]:
    """Measure a claim and judge it.

    A claim is measured where its files exist, whether the configuration makes them or not.

    Args:
        run_tests: whether a claim about a test of the software runs it.

    Returns:
        ``verdict, value, low, high`` (NaN where not known), ``note`` (such as the reason why it is
        not measured) and ``missing``, the files that are missing.
    """
    missing = [path for path in claim.files if not files.exists(path)]
    if not claim.measurable or (claim.test and not run_tests):
        measured = Measured.absence(claim.absent)
    elif missing:
        measured = Measured.absence(claim.absent or f"{missing[0]} does not exist")
    else:
        measured = measure(claim, files)
    equality = claim.compare == "equivalent"
    verdict = judge(measured, claim.lowest, claim.highest, equality=equality)
    ends = {end: getattr(measured, end) for end in ("value", "low", "high")}
    return {"verdict": verdict, **ends, "note": measured.note, "missing": missing}


def checked(claims: Iterable[Planned], files: Files) -> list[dict[str, Any]]:
    """Return the content of each claim with its verdict (``check``)."""
    return [claim.model_dump() | check(claim, files) for claim in claims]


def failed(row: dict[str, Any]) -> bool:
    """Tell whether a claim of the paper does not hold; published ones are not the paper's."""
    return bool(row["origin"] == PAPER and row["verdict"] == FAILS)


def words_of_bounds(row: dict[str, Any]) -> str:
    """Return the accepted values of a claim in words, with their unit."""
    measure = MEASURES[row["measure"]]
    unit = f" {measure.unit}" if measure.unit else ""
    low, high = (
        None if end is None else _signed(f"{end:.4g}") for end in (row["lowest"], row["highest"])
    )
    if low is None:
        return f"at most {high}{unit}"
    if high is None:
        return f"at least {low}{unit}"
    return f"{low} to {high}{unit}"


def words_of_value(row: dict[str, Any]) -> str:
    """Return the measured value of a claim with its interval."""
    digits = MEASURES[row["measure"]].digits
    if math.isnan(row["value"]):
        return ""
    value, low, high = (_signed(f"{row[key]:.{digits}f}") for key in ("value", "low", "high"))
    if math.isnan(row["low"]) or row["low"] == row["high"]:
        if float(f"{row['value']:.{digits}f}") == 0:
            return "0" if row["value"] == 0 else f"below {10**-digits:.{digits}f}"
        return value
    return f"{value} ({low} to {high})"


def _signed(number: str) -> str:
    """Return a formatted number with a minus in place of a hyphen."""
    return f"−{number[1:]}" if number.startswith("-") else number
