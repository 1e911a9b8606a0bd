"""Figures of the scaling analysis: speedups with fitted laws, and cost until the target."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from medscale.engine.parallel.strategies.strategy import Look
from medscale.measure.scaling.advice import is_undecided
from medscale.measure.scaling.series import Series
from medscale.report import style
from medscale.report.names import family, label, look
from medscale.report.result.reading import records
from medscale.report.scaling.tables import LAWS, largest
from medscale.report.units import money_unit, time_unit


def speedups(measured: Sequence[Series], published: Sequence[Series]) -> Figure:
    """Draw speedups by number of devices with the fitted law of each series.

    Each source (ours, published) and kind of device has a panel.
    """
    names_sources = bool(measured and published)
    panels = {
        (f"{source}: " if names_sources or source == "published" else "") + kind.upper(): lines
        for source, series in (("ours", measured), ("published", published))
        for kind in ("cpu", "gpu")
        if (lines := [line for line in series if line.spec.device == kind])
    }
    if not panels:
        return style.only_text("no run on several devices has a counterpart on one")
    rows, columns = style.grid(len(panels), 2)
    alone = len(panels) == 1
    figure = style.new(2.2 if alone else 0.2 + 3.0 * rows)
    axes_of = style.panels(figure, len(panels), columns)
    for (title, lines), (axes,) in zip(panels.items(), axes_of, strict=True):
        draw_series(axes, lines)
        style.legend_beside(axes, alone=alone)
        stand_in = any(line.stand_in for line in lines)
        axes.set_title(title + (" (CPU processes in place of GPUs)" if stand_in else ""))
    return figure


def cost(costs: pd.DataFrame, best: Sequence[str], currency: str) -> Figure:
    """Draw time, device-hours and money until the target, a row for each run.

    A marker is hollow where another run is better in both time and money. A run whose times cannot
    be compared says why in place of a marker (``without_time``).
    """
    if costs.empty:
        return style.only_text("no run tells a validation accuracy")
    figure = style.new(0.9 + 0.21 * len(costs))
    reasons = [without_time(row) for row in records(costs)]
    drawn = costs[[not reason for reason in reasons]]
    time, time_name = time_unit(largest(drawn, "seconds_high"))
    used, used_name = time_unit(3600 * largest(drawn, "device_hours"))
    quantities = (
        ("seconds", time, f"{time_name} to the target"),
        ("device_hours", 3600 * used, f"device-{used_name}"),
        ("money", *money_unit(largest(drawn, "money"), currency)),
    )
    panels = figure.subplots(1, 3, sharey=True)
    heights = style.rows(panels[0], [label(run) for run in costs["run"]])
    for axes, (column, scale, unit) in zip(panels, quantities, strict=True):
        for height, row, reason in zip(heights, records(costs), reasons, strict=True):
            if reason:
                place: dict[str, Any] = {"va": "center", "transform": axes.get_yaxis_transform()}
                axes.text(0.02, height, reason, size=6.5, **place)
                continue
            of_run = look(row["run"])
            if column == "seconds":
                ends = [scale * row[f"seconds{end}"] for end in ("", "_low", "_high")]
                style.interval(axes, height, ends, of_run, marker="")
            face = of_run.colour if row["run"] in best else "white"
            options: dict[str, Any] = {"color": of_run.colour, "markerfacecolor": face}
            axes.plot(scale * row[column], height, of_run.marker, **options)
        highest = largest(drawn, "seconds_high" if column == "seconds" else column)
        axes.set_xlim(0, 1.12 * scale * highest or 1)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set(xlabel=unit)
    return figure


def without_time(row: dict[str, Any]) -> str:
    """Return why a run's time to the target is not compared with others; empty where it is.

    The mean over the replicates that reach the target would favour a run that others of its
    replicates fail.

    Args:
        row: the run's row of ``scaling.target.costs``.
    """
    if row["reached"] < row["replicates"]:
        return f"reached by {row['reached']} of {row['replicates']}"
    return "partly on fewer devices" if math.isnan(row["seconds"]) else ""


def draw_series(axes: Axes, lines: Sequence[Series], look_of: Callable[[str], Look] = look) -> None:
    """Draw the speedups of series against devices, their fitted laws, and the ideal.

    Args:
        axes: the panel.
        lines: the series.
        look_of: gives the look of a series by the name of its run.
    """
    most = max(line.spec.devices for line in lines)
    for factor, line in zip(style.shifts(len(lines)), lines, strict=True):
        table, drawn, fit = line.table(), look_of(line.spec.name), line.law()
        if fit is not None and is_undecided(fit):
            fit = None
        words = family(line.spec.name) + (f" ({LAWS[fit.law]})" if fit is not None else "")
        points = table["devices"] * factor, table["speedup"]
        bars = style.errors(*style.column_ends(table, "speedup"))
        options = style.of_look(drawn, linestyle="", capsize=2, label=words)
        axes.errorbar(*points, yerr=bars, **options)
        if fit is None:
            axes.plot(*points, color=drawn.colour, linewidth=0.5, linestyle=":")
            continue
        n = np.geomspace(1, 2 * line.spec.devices, 200)
        curve = fit.capacity(n) * fit.single / table["throughput"].iloc[0]
        inside = n <= line.spec.devices
        axes.plot(n[inside], curve[inside], color=drawn.colour, linewidth=1)
        axes.plot(n[~inside], curve[~inside], color=drawn.colour, linewidth=0.8, linestyle="--")
        most = max(most, 2 * line.spec.devices)
    ticks = 2.0 ** np.arange(0, np.ceil(np.log2(most)) + 1)
    axes.plot(ticks, ticks, linestyle=":", label="ideal", zorder=1, **style.REFERENCE)
    lowest = min(1.0, *(float(line.table()["speedup_low"].min()) for line in lines))
    powers = np.arange(np.floor(np.log2(lowest)), np.log2(ticks[-1]) + 1)
    style.devices(axes, ticks, "devices")
    style.binary(axes, "y", 2.0**powers)
    axes.set(ylabel="speedup")
