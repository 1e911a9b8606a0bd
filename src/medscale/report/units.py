"""Units for readers: of times, of sums of money, and of what an audit counts."""

from collections.abc import Mapping
from typing import Any

from medscale.data.inventory import NO_FILE

SECONDS_LONGEST, MINUTES_LONGEST = 120, 7200  # seconds up to which a unit is used
SMALLEST_SUM = 0.1  # of a currency: smaller sums are given for many trainings
MANY = (1_000, 1_000_000)


def unit_of_files(audit: Mapping[str, Any]) -> str:
    """Return what ``found`` of audit.json counts, in words."""
    return "files and entries of a table" if audit["by_reason"].get(NO_FILE) else "files"


def time_unit(longest: float) -> tuple[float, str]:
    """Return the factor from seconds to a unit that suits ``longest``, and the unit's name."""
    if longest < SECONDS_LONGEST:
        return 1.0, "seconds"
    return (1 / 60, "minutes") if longest < MINUTES_LONGEST else (1 / 3600, "hours")


def money_unit(largest: float, currency: str) -> tuple[float, str]:
    """Return the factor from a sum of money to a readable unit, and the unit's name.

    A sum that is small even for a thousand trainings is given for a million; 0 is 0 for one.
    """
    if largest >= SMALLEST_SUM or largest == 0:
        return 1.0, currency
    many = MANY[0] if largest * MANY[0] >= SMALLEST_SUM / 10 else MANY[1]
    return float(many), f"{currency} for {many:,} trainings"
