"""Figures over all studies: how far, at what cost, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medscale.engine.parallel.strategies.strategy import Look
from medscale.engine.run import RunSpec
from medscale.evaluate.summary import KINDS
from medscale.measure.scaling.series import Series
from medscale.report import style
from medscale.report.names import GREY, TIME_LOOKS, family, label, look, numbered_look
from medscale.report.scaling.figures import draw_series
from medscale.report.synthesis.runs import StudyRuns, compared

CPU_MARKER = "d"
RING = 7  # points across the marker of a published speedup, more than a measured one's
PANELS = 3  # in a row
PANEL_TITLE = 30  # letters in a line of a panel's title


def how_far(
    studies: Sequence[StudyRuns], series: dict[str, tuple[list[Series], list[Series]]]
) -> Figure:
    """Draw the speedup of each series against devices, a panel for each study that has one.

    ``series``: measured and published series by study.
    """
    members = [study for study in studies if any(series[study.name])]
    if not members:
        return style.only_text("no run on several devices has a counterpart on one")
    rows, columns = style.grid(len(members), PANELS)
    figure = style.new(0.5 + 2.1 * rows)
    handles: dict[str, Any] = {}
    for study, (axes,) in zip(members, style.panels(figure, len(members), columns), strict=True):
        measured, published = series[study.name]
        draw_series(axes, measured or published, look_on_device)
        if measured:
            _published(axes, published)
        else:
            _hollow(axes)
        axes.set_title(style.broken(study.title, PANEL_TITLE))
        for line in (*measured, *published):
            words = f"{family(line.spec.name)}, {line.spec.device.upper()}"
            handles.setdefault(words, _handle(look_on_device(line.spec.name)))
    if any(published for _, published in series.values()):
        handles["published"] = Line2D([], [], color=GREY, marker="o", mfc="white", linestyle="")
    handles["ideal"] = Line2D([], [], linestyle=":", **style.REFERENCE)
    style.legend_below(figure, list(handles.values()), list(handles), ncols=4)
    return figure


def look_on_device(run: str) -> Look:
    """Return the look of a run's family; on CPUs it has a darker colour and another marker."""
    drawn = look(run)
    if RunSpec.parse(run).device == "gpu":
        return drawn
    red, green, blue = (channel / 2 for channel in to_rgb(drawn.colour))
    return Look(to_hex((red, green, blue)), CPU_MARKER, drawn.line)


def at_what_cost(runs: pd.DataFrame, margin: float) -> Figure:
    """Draw the difference in accuracy of each run against its speedup, a look for each study."""
    points = compared(runs[runs["speedup"].notna()])
    if points.empty:
        return style.only_text("no run is compared with a baseline in both speed and accuracy")
    figure = style.new(3.6)
    axes = figure.subplots()
    axes.axhspan(-margin, margin, color="#EEEEEE", zorder=0)
    axes.axhline(0, **style.REFERENCE)
    axes.axvline(1, **style.REFERENCE)
    handles = []
    for number, (title, part) in enumerate(points.groupby("title", sort=False)):
        shape = numbered_look(number)
        for _, row in part.iterrows():
            differs = row["change_low"] > 0 or row["change_high"] < 0
            bars = style.errors(*(np.array([row[f"change{e}"]]) for e in ("", "_low", "_high")))
            face = shape.colour if differs else "white"
            options = style.of_look(shape, linestyle="", capsize=2, markerfacecolor=face)
            axes.errorbar(row["speedup"], row["change"], bars, elinewidth=0.7, **options)
        handles.append(_handle(shape, label=style.broken(str(title), 50)))
    style.binary(axes, "x", _powers(points["speedup"]))
    axes.set(xlabel="speedup over the serial run on the same kind of device")
    axes.set(ylabel="accuracy minus the baseline's (points)")
    style.legend_below(figure, handles, ncols=2)
    return figure


def why(studies: Sequence[StudyRuns]) -> Figure:
    """Draw the shares of an epoch's time by activity, a bar for each run."""
    count = sum(len(study.summaries) + 1 for study in studies)
    figure = style.new(0.7 + 0.135 * count)
    axes = figure.subplots()
    names, height = [], 0.0
    for study in studies:
        style.heading(axes, -height, study.title)
        height += 1
        for run, summary in study.summaries.items():
            seconds = summary["timing"]["seconds_by_kind"]
            _bar(axes, -height, np.array([seconds[kind]["mean"] for kind in KINDS]))
            names.append((-height, label(run)))
            height += 1
    axes.set_yticks([place for place, _ in names], [name for _, name in names], size=6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="share of an epoch's time (%)", xlim=(0, 100), ylim=(0.6 - height, 0.6))
    figure.legend(
        handles=[
            axes.barh(0, 0, color=colour, hatch=hatch, ec="white", label=words)
            for colour, hatch, words in (TIME_LOOKS[kind] for kind in KINDS)
        ],
        loc="outside upper center",
        ncols=len(KINDS),
        columnspacing=1.2,
        handlelength=1.4,
    )
    return figure


def _published(axes: Axes, series: Sequence[Series]) -> None:
    """Draw published speedups as rings above and around the measured points, which stay visible."""
    for line in series:
        table = line.table()
        options = style.of_look(look_on_device(line.spec.name), linestyle="", mfc="none")
        options |= {"markersize": RING, "zorder": 5}
        axes.plot(table["devices"], table["speedup"], **options)


def _hollow(axes: Axes) -> None:
    for line in axes.lines:
        line.set_markerfacecolor("white")


def _handle(drawn: Any, **options: Any) -> Line2D:
    return Line2D([], [], **style.of_look(drawn, linestyle="", **options))


def _bar(axes: Axes, height: float, seconds: np.ndarray) -> None:
    start, shares = 0.0, 100 * seconds / seconds.sum()
    for kind, part in zip(KINDS, shares, strict=True):
        colour, hatch, _ = TIME_LOOKS[kind]
        axes.barh(height, part, 0.75, start, color=colour, hatch=hatch, ec="white", linewidth=0.3)
        start += part


def _powers(values: pd.Series) -> np.ndarray:
    """Return the powers of two around some ratios."""
    low, high = np.log2([float(values.min()), float(values.max())])
    return 2.0 ** np.arange(min(np.floor(low), -1), max(np.ceil(high), 1) + 1)
