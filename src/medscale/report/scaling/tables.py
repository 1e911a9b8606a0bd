"""Tables of the scaling analysis: speedup by series, fitted laws, cost until the target accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.measure.scaling import Series
from medscale.measure.scaling.advice import undecided
from medscale.measure.scaling.laws import Fit, Value
from medscale.report.latex import escape, number, significant, span, stacked, tabular
from medscale.report.names import family, label
from medscale.report.overview.tables import DAGGER, with_range
from medscale.report.result.reading import records

HELD = {"global": "global batch", "per_device": "batch a device", "other": "neither", "": "unknown"}
SCALING = {"global": "strong", "per_device": "weak", "other": "--", "": "--"}
LAWS = {"amdahl": "Amdahl", "gustafson": "Gustafson", "usl": "USL"}
HOURS = ("device_hours", "whole_device_hours")  # in the same units
CHOSEN = r"\textsuperscript{*}"


def series(found: Sequence[Series]) -> tuple[str, pd.DataFrame]:
    """Speedup and efficiency of each series by number of devices, with intervals, strong and weak scaling apart."""
    rows, flat, rules = [], [], []
    for one in sorted(found, key=lambda one: list(HELD).index(one.held)):
        table = one.table()
        for place, row in enumerate(records(table)):
            name = escape(f"{family(one.spec.name)}, {one.spec.device.upper()}") + (
                DAGGER if one.stand_in else ""
            )
            rows.append(
                [
                    name if place == 0 else "",
                    SCALING[one.held] if place == 0 else "",
                    escape(label(row["run"])),
                    str(row["replicates"]),
                    with_range(row["seconds"], row["seconds_low"], row["seconds_high"]),
                    with_range(row["speedup"], row["speedup_low"], row["speedup_high"], 2),
                    _interval(row, "speedup"),
                    number(row["efficiency"], 2),
                    number(row["serial_fraction"], 3),
                ]
            )
        rules.append(len(rows) - 1)
        flat.append(table.assign(series=one.name, held=one.held, stand_in=one.stand_in))
    if not rows:
        rows = [["no run on several devices has a counterpart on one", *[""] * 8]]
    heads = (
        r"repli-\\cates",
        r"s an epoch\\(range)",
        r"speedup\\(range)",
        r"95\,\%\\interval",
        r"effi-\\ciency",
        r"serial\\fraction",
    )
    aligned = [
        ("l", "series"),
        ("l", "scaling"),
        ("l", "run"),
        *[("r", stacked(head)) for head in heads],
    ]
    empty = pd.DataFrame({"series": [], "held": [], "run": []})
    return tabular(aligned, rows, rules), pd.concat(flat, ignore_index=True) if flat else empty


def laws(found: Mapping[str, Sequence[Series]]) -> tuple[str, pd.DataFrame]:
    """The laws fitted to each series that has devices enough for one, ours and the published ones side by side.

    Args:
        found: series by where they come from.
    """
    rows: list[list[str]] = []
    flat, rules = [], []
    for source, several in found.items():
        for one in several:
            rows += _law_rows(source, one)
            flat += _law_records(source, one)
        rules.append(len(rows) - 1)
    if not rows:
        rows = [["no series has enough different numbers of devices for a law", *[""] * 7]]
    heads = (
        r"serial part\\(95\,\% interval)",
        r"crosstalk (\ensuremath{10^{-3}},\\95\,\% interval)",
        r"fastest at\\devices",
        r"efficiency\\1/2 at",
        r"error\\(\%)",
    )
    aligned = [
        ("l", "series"),
        ("l", "devices"),
        ("l", "law"),
        *[("r", stacked(head)) for head in heads],
    ]
    return tabular(aligned, rows, rules), pd.DataFrame(flat)


def cost(table: pd.DataFrame, best: Sequence[str], currency: str) -> tuple[str, pd.DataFrame]:
    """Time, device-hours and money of each run until the target accuracy, and of its whole training."""
    rows, hours, price = [], power(table, *HOURS), power(table, "money")
    for row in records(table):
        rows.append(
            [
                escape(label(row["run"]))
                + (DAGGER if row["stand_in"] else "")
                + (CHOSEN if row["run"] in best else ""),
                f"{row['reached']} of {row['replicates']}",
                significant(row["seconds"] / 60),
                significant(row["device_hours"] / 10**hours),
                significant(row["money"] / 10**price, 2),
                significant(row["whole_seconds"] / 60),
                significant(row["whole_device_hours"] / 10**hours),
                significant(row["energy_kwh"]),
            ]
        )
    heads = (
        r"replicates that\\reach it",
        r"minutes\\to target",
        rf"{_times(hours)}device-hours\\to target",
        rf"{_times(price)}{escape(currency)}\\to target",
        r"whole\\minutes",
        rf"whole\\{_times(hours)}device-hours",
        r"energy\\(kWh)",
    )
    return tabular([("l", "run"), *[("r", stacked(head)) for head in heads]], rows), table


def power(table: pd.DataFrame, *columns: str) -> int:
    """The power of ten (0, -3, -6, ...) in whose units the largest of some columns' values can be read."""
    largest = table[list(columns)].to_numpy(float)
    largest = largest[np.isfinite(largest) & (largest > 0)]
    return (
        3 * math.floor(math.log10(largest.max()) / 3) if largest.size and largest.max() < 0.1 else 0
    )


def _times(exponent: int) -> str:
    return rf"\ensuremath{{10^{{{exponent}}}}} " if exponent else ""


def _law_rows(source: str, one: Series) -> list[list[str]]:
    counts = [str(point.spec.devices) for point in one.points]
    name = f"{family(one.spec.name)}, {one.spec.device.upper()}"
    told = ", ".join(counts if len(counts) < 5 else [*counts[:2], r"\ldots", counts[-1]])
    start = [f"{source}: {escape(name)}" + (DAGGER if one.stand_in else ""), told]
    found, chosen = one.laws(), one.law()
    rows = []
    for number_, fit in enumerate(found.values()):
        mark = CHOSEN if chosen is not None and fit.law == chosen.law else ""
        rows.append([*(start if number_ == 0 else ["", ""]), LAWS[fit.law] + mark, *_numbers(fit)])
    return rows


def _numbers(fit: Fit) -> list[str]:
    if undecided(fit):
        return [f"undecided ({_span(fit.serial, 2)})", "--", "--", "--", number(fit.error, 1, 100)]
    return [
        _value(fit.serial, 3),
        _value(fit.crosstalk, 2, 1000) if fit.law == "usl" else "--",
        _value(fit.best, 0) if fit.law == "usl" else "--",
        _value(fit.half, 0),
        number(fit.error, 1, 100),
    ]


def _law_records(source: str, one: Series) -> list[dict[str, Any]]:
    chosen = one.law()
    base = {"source": source, "series": one.name, "held": one.held, "stand_in": one.stand_in}
    base["devices"] = " ".join(str(point.spec.devices) for point in one.points)
    found: list[dict[str, Any]] = []
    for fit in one.laws().values():
        parts = {
            "serial": fit.serial,
            "crosstalk": fit.crosstalk,
            "best": fit.best,
            "half": fit.half,
        }
        flat = {
            f"{name}{end}": v
            for name, x in parts.items()
            for end, v in zip(("", "_low", "_high"), _ends(x), strict=True)
        }
        preferred = chosen is not None and fit.law == chosen.law
        found.append(
            {
                **base,
                "law": fit.law,
                **flat,
                "error": fit.error,
                "aicc": fit.aicc,
                "preferred": preferred,
            }
        )
    return found or [{**base, "law": "", "preferred": False}]


def _ends(value: Value) -> tuple[float, float, float]:
    return value.value, value.low, value.high


def _interval(row: dict[str, Any], column: str) -> str:
    low, high = row[f"{column}_ci_low"], row[f"{column}_ci_high"]
    return "--" if math.isnan(low) or low == high else span(low, high, 2)


def _value(value: Value, digits: int, scale: float = 1.0) -> str:
    if not math.isfinite(value.value):
        return "none"
    return f"{number(value.value, digits, scale)} ({_span(value, digits, scale)})"


def _span(value: Value, digits: int, scale: float = 1.0) -> str:
    high = (
        number(value.high, digits, scale) if math.isfinite(value.high) else r"\ensuremath{\infty}"
    )
    low = number(value.low, digits, scale) if math.isfinite(value.low) else r"\ensuremath{\infty}"
    return f"{low}--{high}"
