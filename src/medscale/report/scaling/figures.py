"""Figures of the scaling analysis: speedups with fitted laws, ours beside the published; cost until the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from medscale.measure.scaling import Series
from medscale.measure.scaling.advice import undecided
from medscale.report import style
from medscale.report.names import GREY, family, label, look
from medscale.report.scaling.tables import HOURS, LAWS, power


@style.styled
def speedups(ours: Sequence[Series], published: Sequence[Series]) -> Figure:
    """Measured speedup by number of devices with the fitted law of each series, a panel a source and kind of device."""
    panels = [
        (
            f"{source}: {'CPU' if kind == 'cpu' else 'GPU'}",
            [one for one in found if one.spec.device == kind],
        )
        for source, found in (("ours", ours), ("published", published))
        for kind in ("cpu", "gpu")
    ]
    panels = [(title, found) for title, found in panels if found]
    if not panels:
        figure = style.new(1.2)
        style.empty(figure.subplots(), "no run on several devices has a counterpart on one")
        return figure
    rows, columns = style.grid(len(panels), 2)
    alone = len(panels) == 1
    figure = style.new(2.2 if alone else 0.2 + 3.0 * rows)
    for (title, found), (axes,) in zip(
        panels, style.panels(figure, len(panels), columns), strict=True
    ):
        _panel(axes, found)
        style.legend_beside(axes, alone=alone)
        axes.set_title(
            title
            + (" (CPU processes in place of GPUs)" if any(one.stand_in for one in found) else "")
        )
    return figure


@style.styled
def cost(table: pd.DataFrame, best: Sequence[str], currency: str) -> Figure:
    """Time, device-hours and money until the target accuracy, a row a run; hollow where another beats it in both."""
    if table.empty:
        figure = style.new(1.2)
        style.empty(figure.subplots(), "no run tells a validation accuracy")
        return figure
    figure = style.new(0.9 + 0.21 * len(table))
    places = np.arange(len(table))[::-1]
    columns = (
        ("seconds", 1 / 60, "minutes to the target"),
        _in_units(table, "device-hours", *HOURS),
        _in_units(table, currency, "money"),
    )
    for axes, (column, scale, unit) in zip(
        figure.subplots(1, 3, sharey=True), columns, strict=True
    ):
        for place, (_, row) in zip(places, table.iterrows(), strict=True):
            drawn, value = look(row["run"]), scale * row[column]
            if value != value:
                axes.text(
                    0.02,
                    place,
                    "not reached",
                    size=6.5,
                    va="center",
                    transform=axes.get_yaxis_transform(),
                )
                continue
            face = drawn.colour if row["run"] in best else "white"
            if column == "seconds":
                bars = style.errors(
                    *(scale * np.array([row[f"seconds{end}"]]) for end in ("", "_low", "_high"))
                )
                axes.errorbar(value, place, xerr=bars, color=drawn.colour, capsize=2)
            axes.plot(value, place, drawn.marker, color=drawn.colour, markerfacecolor=face)
        highest = table["seconds_high" if column == "seconds" else column].max()
        axes.set_xlim(0, 1.12 * scale * highest if highest > 0 else 1)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set(xlabel=unit)
    figure.axes[0].set_yticks(places, [label(run) for run in table["run"]])
    figure.axes[0].set_ylim(-0.6, len(table) - 0.4)
    return figure


def _in_units(table: pd.DataFrame, name: str, *columns: str) -> tuple[str, float, str]:
    """The first column with its scale and its name, in units in which the values of all can be read."""
    exponent = power(table, *columns)
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return columns[0], 10.0**-exponent, f"10{digits} {name}" if exponent else name


def _panel(axes: Axes, found: Sequence[Series]) -> None:
    most = max(one.spec.devices for one in found)
    shifts = np.linspace(-0.03, 0.03, len(found)) if len(found) > 1 else np.zeros(1)
    for shift, one in zip(shifts, found, strict=True):
        table, drawn, fit = one.table(), look(one.spec.name), one.law()
        bars = style.errors(
            *(table[f"speedup{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        )
        told = fit is not None and not undecided(fit)
        words = family(one.spec.name) + (f" ({LAWS[fit.law]})" if fit is not None and told else "")
        axes.errorbar(
            table["devices"] * 2**shift,
            table["speedup"],
            yerr=bars,
            color=drawn.colour,
            marker=drawn.marker,
            linestyle="",
            capsize=2,
            label=words,
        )
        if fit is not None and told:
            n = np.geomspace(1, 2 * one.spec.devices, 200)
            curve = fit.capacity(n) * fit.single / table["throughput"].iloc[0]
            inside = n <= one.spec.devices
            axes.plot(n[inside], curve[inside], color=drawn.colour, linewidth=1)
            axes.plot(n[~inside], curve[~inside], color=drawn.colour, linewidth=0.8, linestyle="--")
            most = max(most, 2 * one.spec.devices)
        else:
            axes.plot(
                table["devices"] * 2**shift,
                table["speedup"],
                color=drawn.colour,
                linewidth=0.5,
                linestyle=":",
            )
    ticks = 2.0 ** np.arange(0, np.ceil(np.log2(most)) + 1)
    axes.plot(ticks, ticks, color=GREY, linewidth=0.8, linestyle=":", label="ideal", zorder=1)
    lowest = min(1.0, *(float(one.table()["speedup_low"].min()) for one in found))
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log", base=2)
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks)
    axes.set_yticks(2.0 ** np.arange(np.floor(np.log2(lowest)), np.log2(ticks[-1]) + 1))
    axes.set(xlabel="devices", ylabel="speedup", xlim=(0.85, ticks[-1] * 1.18))
