"""What follows from a series, in words, by rules that stand here: how many devices are worth using, and how surely.

1. The series with the shortest time speaks for its kind of device.
2. Devices are worth using as long as their parallel efficiency is one half or more: at one half a device-hour buys half
   of what it does on one device, and another replicate on the other devices is the better use.
3. Our own devices are recommended only where their speedup over one is told from none: the 95 % interval lies above 1.
   With one replicate there is no interval. Either way the recommendation is called undecided.
4. A law is cited only where the series has enough different numbers of devices, and with its interval; an interval that
   leaves out next to nothing (serial part from below 0.05 to above 0.5) is called undecided instead.
5. A speedup above the number of devices is called that, and not explained by any law.
6. That sharing the work pays holds as far as devices are worth using, and not as stated where rule 5 applies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from medscale.measure.scaling.laws import FEWEST, Fit, Value
from medscale.measure.scaling.series import Series

ENOUGH = 0.5
LAWS = {
    "amdahl": "the law of Amdahl",
    "gustafson": "the law of Gustafson",
    "usl": "the Universal Scalability Law",
}


def speaker(series: Sequence[Series]) -> Series:
    """The series with the shortest time on any number of devices."""
    return min(series, key=lambda one: float(one.table()["seconds"].min()))


def worthwhile(table: pd.DataFrame) -> int:
    """The largest number of devices whose efficiency, like that of all smaller ones, is one half or more."""
    enough = (table["efficiency"] >= ENOUGH).tolist()
    count = enough.index(False) if False in enough else len(enough)
    return int(table["devices"].iloc[max(count, 1) - 1])


def undecided(fit: Fit) -> bool:
    """Whether a fit says next to nothing of the serial part."""
    return fit.serial.low < 0.05 and fit.serial.high > 0.5


def recommendation(series: Series, what: str) -> str:
    """One to three sentences on how many devices to use.

    Args:
        series: whose ``table`` and ``law`` are judged.
        what: the devices in the plural: "GPUs", "CPU workers", "CPU processes in place of GPUs".
    """
    return f"{_advice(series.table(), what)}. {_by_law(series, what)}"


def findings(series: Series, what: str) -> str:
    """What a series shows, in sentences: its speedup, its last step, what no law allows, and its law."""
    table = series.table()
    last, use = table.iloc[-1], worthwhile(table)
    worth = f"up to {use} devices are worth using" if use > 1 else "one device is the better use"
    worth += (
        ", as far as the time on one device can be relied on" if len(superlinear(table)) else ""
    )
    said = [
        f"{_times(last['speedup'])} on {int(last['devices'])} {what}, an efficiency of {_share(last)}",
        *_last_step(table),
        *_above(table),
        f"by the rule of one half {worth}",
    ]
    return f"{'; '.join(said)}. {_by_law(series, what)}"


def verdict(series: Series) -> str:
    """Whether it holds that sharing the work over the series' devices pays, by rule 6: a few words."""
    table = series.table()
    most, use = int(table["devices"].max()), worthwhile(table)
    if len(superlinear(table)):
        return "not as stated"
    if use == most:
        return "holds"
    return f"holds up to {use} of {most}" if use > 1 else "does not hold"


def superlinear(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose speedup is above their number of devices by more than one percent."""
    return table[table["speedup"] > 1.01 * table["devices"]]


def _advice(table: pd.DataFrame, what: str) -> str:
    """How many of ``what`` to use, by rules 2 and 3."""
    most, use = int(table["devices"].max()), worthwhile(table)
    at = table[table["devices"] == use].iloc[0]
    if use == 1:
        following = table.iloc[1]
        return (
            f"One device is the better use of {what}: {int(following['devices'])} have an efficiency of "
            f"{_share(following)}, below one half, so that further devices serve better for further seeds"
        )
    if why := _unsure(at):
        return f"Whether {use} {what} are worth using is undecided: their efficiency is {_share(at)}, but {why}"
    if use == most:
        return (
            f"The {most} {what} that were tried are worth using: their efficiency is {_share(at)}"
        )
    following = table[table["devices"] > use].iloc[0]
    return (
        f"Up to {use} {what} are worth using: their efficiency is {_share(at)}, that of "
        f"{int(following['devices'])} is {_share(following)}, below one half"
    )


def _unsure(row: pd.Series) -> str:
    """Why a speedup over one device is not told from none, by rule 3; empty where it is."""
    low, high = row["speedup_ci_low"], row["speedup_ci_high"]
    if math.isnan(low):
        return (
            f"the speedup of {row['speedup']:.2f} rests on one replicate, which gives no interval"
        )
    if low <= 1:
        return f"the speedup of {row['speedup']:.2f} has a 95 % interval of {low:.2f} to {high:.2f}, which holds 1"
    return ""


def _last_step(table: pd.DataFrame) -> list[str]:
    if len(table) < 3:
        return []
    before, last = table.iloc[-2], table.iloc[-1]
    saved = 100 * (1 - last["seconds"] / before["seconds"])
    more = 100 * (last["devices"] * last["seconds"] / (before["devices"] * before["seconds"]) - 1)
    change = (
        f"takes {saved:.0f} % of the time away"
        if saved >= 0
        else f"adds {-saved:.0f} % to the time"
    )
    cost = (
        f"costs {more:.0f} % more device-hours"
        if more >= 0
        else f"saves {-more:.0f} % of the device-hours"
    )
    return [f"the step from {int(before['devices'])} to {int(last['devices'])} {change} and {cost}"]


def _above(table: pd.DataFrame) -> list[str]:
    rows = superlinear(table)
    return [
        f"{_times(row['speedup'])} on {int(row['devices'])} is more than {int(row['devices'])}"
        for _, row in rows.iterrows()
    ]


def _by_law(series: Series, what: str) -> str:
    fit, different = series.law(), len({point.spec.devices for point in series.points})
    if fit is None:
        return f"{different} different numbers of devices are too few for a law ({min(FEWEST.values())} are needed)."
    if undecided(fit):
        return f"The serial part by {LAWS[fit.law]} is undecided ({_span(fit.serial, 2)})."
    text = f"By {LAWS[fit.law]} a part of {fit.serial.value:.3f} ({_span(fit.serial, 3)}) is not shared"
    if math.isfinite(fit.best.value):
        return (
            f"{text}, and the time is shortest at {fit.best.value:.0f} {what} ({_span(fit.best, 0)}): more than that "
            "make it longer."
        )
    if math.isfinite(fit.half.value):
        return f"{text}, and efficiency falls to one half at {fit.half.value:.0f} {what} ({_span(fit.half, 0)})."
    return f"{text}, and efficiency stays above one half."


def _share(row: pd.Series) -> str:
    """Efficiency with as many digits as tell it from one half."""
    return f"{row['efficiency']:.{2 if abs(row['efficiency'] - ENOUGH) > 0.005 else 4}f}"


def _times(speedup: float) -> str:
    return f"{speedup:.2f} times the speed"


def _span(value: Value, digits: int) -> str:
    high = f"{value.high:.{digits}f}" if math.isfinite(value.high) else "no bound"
    return f"95 % interval {value.low:.{digits}f} to {high}"
