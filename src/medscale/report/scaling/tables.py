"""Tables of the scaling analysis: speedup by series, fitted laws, cost until the target."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.text import latex
from medscale.measure.scaling.advice import is_undecided
from medscale.measure.scaling.laws import Fit, Value
from medscale.measure.scaling.series import Series
from medscale.report.latex import number, significant, span
from medscale.report.names import family
from medscale.report.result.reading import records
from medscale.report.tables import DAGGER, by_run, left, ranged, right, table
from medscale.report.units import money_unit, time_unit

KEPT = ("global", "per_device", "other", "")  # which batch a series keeps; order of the table
SCALING = {"global": "strong", "per_device": "weak", "other": "--", "": "--"}
LAWS = {"amdahl": "Amdahl", "gustafson": "Gustafson", "usl": "USL"}
HOURS = ("device_hours", "whole_device_hours")  # printed in the same units
CHOSEN = r"\textsuperscript{*}"


def series(several: Sequence[Series]) -> tuple[str, pd.DataFrame]:
    """Return speedup and efficiency of each series by number of devices, with intervals."""
    rows: list[dict[str, Any]] = []
    flat, rules = [], []
    for line in sorted(several, key=lambda line: KEPT.index(line.constant_batch)):
        points = line.table()
        first = {"series": _name(line), "scaling": SCALING[line.constant_batch]}
        for place, row in enumerate(records(points)):
            rows.append(row | (first if place == 0 else {"series": "", "scaling": ""}))
        rules.append(len(rows) - 1)
        flat.append(
            points.assign(series=line.name, held=line.constant_batch, stand_in=line.stand_in)
        )
    columns = [
        left("series", lambda row: row["series"]),
        left("scaling", lambda row: row["scaling"]),
        left("run", by_run()),
        right(r"repli-\\cates", lambda row: str(row["replicates"])),
        right(r"s an epoch\\(range)", lambda row: ranged(row, "seconds")),
        right(r"speedup\\(range)", lambda row: ranged(row, "speedup", 2)),
        right(r"95\,\%\\interval", _confidence),
        right(r"effi-\\ciency", lambda row: number(row["efficiency"], 2)),
        right(r"serial\\fraction", lambda row: number(row["serial_fraction"], 3)),
    ]
    otherwise = "no run on several devices has a counterpart on one"
    text = table(rows, columns, otherwise=otherwise, rules_after=rules)
    empty = pd.DataFrame({"series": [], "held": [], "run": []})
    return text, pd.concat(flat, ignore_index=True) if flat else empty


def laws(sources: Mapping[str, Sequence[Series]]) -> tuple[str, pd.DataFrame]:
    """Return the laws fitted to each series with enough numbers of devices.

    ``sources``: series by where they come from: ours, published.
    """
    rows: list[dict[str, Any]] = []
    flat: list[dict[str, Any]] = []
    rules = []
    for source, several in sources.items():
        for line in several:
            rows += _law_rows(source, line)
            flat += _law_records(source, line)
        rules.append(len(rows) - 1)
    columns = [
        left("series", lambda row: row["series"]),
        left("devices", lambda row: row["devices"]),
        left("law", lambda row: row["law"]),
        right(r"serial part\\(95\,\% interval)", _serial),
        right(
            r"crosstalk (\ensuremath{10^{-3}},\\95\,\% interval)",
            lambda row: _of_law(row["fit"], row["fit"].crosstalk, 2, 1000),
        ),
        right(r"fastest at\\devices", lambda row: _of_law(row["fit"], row["fit"].best, 0)),
        right(
            r"efficiency\\1/2 at",
            lambda row: "--" if is_undecided(row["fit"]) else _value(row["fit"].half, 0),
        ),
        right(r"error\\(\%)", lambda row: number(row["fit"].error, 1, 100)),
    ]
    otherwise = "no series has enough different numbers of devices for a law"
    return table(rows, columns, otherwise=otherwise, rules_after=rules), pd.DataFrame(flat)


def cost(
    costs: pd.DataFrame, best: Sequence[str], currency: str, timings: Mapping[str, dict[str, Any]]
) -> str:
    """Return the table of time, device-hours and money: until the target, and of all epochs.

    ``timings``: ``timing`` of summary.json by run.
    """
    until, until_unit = time_unit(_largest(costs, "seconds"))
    whole, whole_unit = time_unit(_largest(costs, "whole_seconds"))
    used, used_unit = time_unit(3600 * _largest(costs, *HOURS))
    price, sum_unit = money_unit(_largest(costs, "money"), currency)
    money = latex(sum_unit).replace(" for ", r"\\ for ")
    run_cell = by_run()

    def run(row: dict[str, Any]) -> str:
        return run_cell(row) + (CHOSEN if row["run"] in best else "")

    def mean(row: dict[str, Any], quantity: str) -> str:
        return significant(timings[row["run"]][quantity]["mean"])

    def hours(value: float) -> str:
        return significant(value * 3600 * used)

    columns = [
        left("run", run),
        right(r"s an\\epoch", lambda row: mean(row, "seconds_per_epoch")),
        right("images/s", lambda row: mean(row, "images_per_second")),
        right(r"replicates\\at target", lambda row: f"{row['reached']} of {row['replicates']}"),
        right(rf"{until_unit}\\to target", lambda row: significant(row["seconds"] * until)),
        right(rf"device-{used_unit}\\to target", lambda row: hours(row["device_hours"])),
        right(rf"{money}\\to target", lambda row: significant(row["money"] * price, 2)),
        right(rf"whole\\{whole_unit}", lambda row: significant(row["whole_seconds"] * whole)),
        right(rf"whole\\device-{used_unit}", lambda row: hours(row["whole_device_hours"])),
        right(r"energy\\(kWh)", lambda row: significant(row["energy_kwh"])),
    ]
    return table(records(costs), columns)


def _largest(costs: pd.DataFrame, *columns: str) -> float:
    """Return the largest finite value of some columns, 0 without any."""
    values = costs[list(columns)].to_numpy(float)
    return float(max(values[np.isfinite(values)], default=0))


def _name(line: Series, source: str = "") -> str:
    words = f"{source}{family(line.spec.name)}, {line.spec.device.upper()}"
    return latex(words) + (DAGGER if line.stand_in else "")


def _law_rows(source: str, line: Series) -> list[dict[str, Any]]:
    counts, chosen = [str(point.spec.devices) for point in line.points], line.law()
    devices = ", ".join(counts if len(counts) < 5 else [*counts[:2], r"\ldots", counts[-1]])
    rows: list[dict[str, Any]] = []
    for fit in line.laws().values():
        mark = CHOSEN if chosen is not None and fit.law == chosen.law else ""
        first = {"series": "", "devices": ""}
        if not rows:
            first = {"series": _name(line, f"{source}: "), "devices": devices}
        rows.append(first | {"law": LAWS[fit.law] + mark, "fit": fit})
    return rows


def _law_records(source: str, line: Series) -> list[dict[str, Any]]:
    chosen = line.law()
    base = {
        "source": source,
        "series": line.name,
        "held": line.constant_batch,
        "stand_in": line.stand_in,
    }
    base["devices"] = " ".join(str(point.spec.devices) for point in line.points)
    rows: list[dict[str, Any]] = []
    for fit in line.laws().values():
        row = base | {"law": fit.law}
        for name in ("serial", "crosstalk", "best", "half"):
            value: Value = getattr(fit, name)
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        preferred = chosen is not None and fit.law == chosen.law
        rows.append(row | {"error": fit.error, "aicc": fit.aicc, "preferred": preferred})
    return rows or [{**base, "law": "", "preferred": False}]


def _serial(row: dict[str, Any]) -> str:
    fit = row["fit"]
    return f"undecided ({_span(fit.serial, 2)})" if is_undecided(fit) else _value(fit.serial, 3)


def _of_law(fit: Fit, value: Value, digits: int, scale: float = 1.0) -> str:
    """Return a value that the USL alone has."""
    return _value(value, digits, scale) if fit.law == "usl" and not is_undecided(fit) else "--"


def _confidence(row: dict[str, Any]) -> str:
    low, high = row["speedup_ci_low"], row["speedup_ci_high"]
    return "--" if math.isnan(low) or low == high else span(low, high, 2)


def _value(value: Value, digits: int, scale: float = 1.0) -> str:
    if not math.isfinite(value.value):
        return "none"
    return f"{number(value.value, digits, scale)} ({_span(value, digits, scale)})"


def _span(value: Value, digits: int, scale: float = 1.0) -> str:
    ends = [
        number(end, digits, scale) if math.isfinite(end) else r"\ensuremath{\infty}"
        for end in (value.low, value.high)
    ]
    return "--".join(ends)
