"""Recommendations in words: how many devices are worth using, and how certain that is.

The rules:

1. The series with the shortest time represents its kind of device.
2. Devices are worth using as long as their parallel efficiency is one half or more. Below one half,
   a device-hour achieves less than half of its work on a single device, and further devices are
   better used for another replicate.
3. Several devices are recommended only if the 95 % interval of their speedup over one lies above 1,
   one device only if that of the efficiency of the next number of devices lies below one half.
   Otherwise, and with one replicate, which gives no interval, the recommendation is undecided.
4. A law is cited with its interval, and only if the series has enough different numbers of devices.
   A very wide interval (serial part from below 0.05 to above 0.5) is called undecided instead.
5. A speedup above the number of devices is reported as such; no law explains it.
6. A published series supports the claim that sharing the work pays, up to the number of devices
   that are worth using. A series to which rule 5 applies is not judged, since its time on one
   device is in doubt.
"""

import math
from collections.abc import Sequence

import pandas as pd

from medscale.measure.scaling.laws import Fit, Value
from medscale.measure.scaling.series import Series

ENOUGH = 0.5  # efficiency
LAWS = {
    "amdahl": "Amdahl's law",
    "gustafson": "Gustafson's law",
    "usl": "the Universal Scalability Law",
}


def representative(series: Sequence[Series]) -> Series:
    """Return the series with the shortest time on any number of devices (rule 1)."""
    return min(series, key=lambda member: float(member.table()["seconds"].min()))


def worthwhile(table: pd.DataFrame) -> int:
    """Return the largest number of devices up to which efficiency stays at one half or more."""
    is_worthwhile = (table["efficiency"] >= ENOUGH).tolist()
    count = is_worthwhile.index(False) if False in is_worthwhile else len(is_worthwhile)
    return int(table["devices"].iloc[max(count, 1) - 1])


def is_undecided(fit: Fit) -> bool:
    """Return whether the interval of a fit's serial part is too wide to cite (rule 4)."""
    return fit.serial.low < 0.05 and fit.serial.high > 0.5


def recommendation(series: Series, devices: str) -> str:
    """Return one to three sentences on how many devices to use.

    Args:
        series: the series to judge.
        devices: name of the devices in the plural: "GPUs", "CPU processes in place of GPUs".
    """
    return f"{_advice(series.table(), devices)}. {_by_law(series, devices)}".strip()


def speedup_of(series: Series, devices: str) -> str:
    """Return speedup and efficiency on the largest number of devices, and the law, in words."""
    last = series.table().iloc[-1]
    text = f"{last['speedup']:.2f} times the speed on {int(last['devices'])} {devices}"
    fit = series.law()
    law = "" if fit is None or is_undecided(fit) else _by_law(series, devices)
    return f"{text} (efficiency {_share(last)}{'; ' + law[0].lower() + law[1:-1] if law else ''})"


def verdict(series: Series, devices: str = "devices") -> str:
    """Return in a few words whether sharing the work over the devices pays (rule 6).

    ``devices``: their name in the plural. The series is a published one.
    """
    table = series.table()
    largest, count = int(table["devices"].max()), worthwhile(table)
    if len(above := superlinear(table)):
        first = above.iloc[0]
        return (
            f"not judged, since the published speedup of {first['speedup']:.2f} on "
            f"{int(first['devices'])} {devices} exceeds the number of devices"
        )
    if count == largest:
        return "consistent"
    return f"consistent up to {count} of {largest} devices" if count > 1 else "not consistent"


def superlinear(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose speedup exceeds their number of devices by more than one percent."""
    return table[table["speedup"] > 1.01 * table["devices"]]


def _advice(table: pd.DataFrame, devices: str) -> str:
    """Return how many of the devices to use (rules 2 and 3)."""
    largest, count = int(table["devices"].max()), worthwhile(table)
    row = table[table["devices"] == count].iloc[0]
    if count == 1:
        return _against(table.iloc[1], devices)
    if reason := _unsure(row):
        return (
            f"Whether {count} {devices} are worth using is not decided: their efficiency is "
            f"{_share(row)}, but {reason}"
        )
    if count == largest:
        return (
            f"The {largest} {devices} of the largest run are worth using: their efficiency is "
            f"{_share(row)}"
        )
    next_row = table[table["devices"] > count].iloc[0]
    return (
        f"Up to {count} {devices} are worth using: their efficiency is {_share(row)}, that of "
        f"{int(next_row['devices'])} is {_share(next_row)}, below one half"
    )


def _against(row: pd.Series, devices: str) -> str:
    """Return the advice where the efficiency of the fewest devices is below one half (rule 3)."""
    count, high = int(row["devices"]), row["efficiency_ci_high"]
    if _alone(row) or high >= ENOUGH:
        reason = "is that of one replicate and has no interval"
        if not _alone(row):
            low = row["efficiency_ci_low"]
            reason = f"has a 95 % interval of {low:.2f} to {high:.2f}, which includes one half"
        return (
            f"Whether {count} {devices} are worth using is not decided: their efficiency of "
            f"{_share(row)} {reason}"
        )
    return (
        f"Use one device. The efficiency of {count} {devices} is {_share(row)}, below one half "
        "with its interval, so a further device is better used for another seed"
    )


def _unsure(row: pd.Series) -> str:
    """Return why a speedup is not distinguished from 1 (rule 3); empty if it is."""
    low, high = row["speedup_ci_low"], row["speedup_ci_high"]
    if _alone(row):
        return f"the speedup of {row['speedup']:.2f} is that of one replicate and has no interval"
    if low <= 1:
        return (
            f"the speedup of {row['speedup']:.2f} has a 95 % interval of {low:.2f} to {high:.2f}, "
            "which includes 1"
        )
    return ""


def _alone(row: pd.Series) -> bool:
    """Return whether a speedup has no interval, because there is one replicate."""
    return math.isnan(row["speedup_ci_low"])


def _by_law(series: Series, devices: str) -> str:
    fit = series.law()
    if fit is None:  # too few different numbers of devices
        return ""
    if is_undecided(fit):
        name = LAWS[fit.law]
        return (
            f"{name[0].upper()}{name[1:]} leaves the serial part undecided "
            f"({_span(fit.serial, 2)})."
        )
    serial = f"{fit.serial.value:.3f} ({_span(fit.serial, 3)})"
    text = f"By {LAWS[fit.law]}, the serial part is {serial}"
    if math.isfinite(fit.best.value):
        return (
            f"{text}, and the time is shortest at {fit.best.value:.0f} {devices} "
            f"({_span(fit.best, 0)})."
        )
    if math.isfinite(fit.half.value):
        return (
            f"{text}, and efficiency falls to one half at {fit.half.value:.0f} {devices} "
            f"({_span(fit.half, 0)})."
        )
    return f"{text}, and efficiency stays above one half."


def _share(row: pd.Series) -> str:
    """Return the efficiency with enough digits to distinguish it from one half."""
    return f"{row['efficiency']:.{2 if abs(row['efficiency'] - ENOUGH) > 0.005 else 4}f}"


def _span(value: Value, digits: int) -> str:
    high = f"{value.high:.{digits}f}" if math.isfinite(value.high) else "no bound"
    return f"95 % interval {value.low:.{digits}f} to {high}"
