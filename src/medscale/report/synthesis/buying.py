"""The figure what_to_buy: time and money until the target, a row for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from medscale.measure.scaling.target import frontier
from medscale.report import style
from medscale.report.names import BLUE, GREY, LOOKS, label
from medscale.report.result.reading import records
from medscale.report.scaling.figures import without_time
from medscale.report.synthesis.runs import StudyRuns
from medscale.report.units import money_unit, time_unit

WIDE = 50  # ratio of the ends of an axis from which only powers of ten are labelled


def what_to_buy(studies: Sequence[StudyRuns], currency: str) -> Figure:
    """Draw time and money until the target, a row for each run of each study with a target.

    A marker is filled where no other run of the study is both faster and cheaper. In place of a
    marker, a run of which not all replicates reach the target has their number, and one that went
    on with fewer devices says so.
    """
    costs = {study.title: study.tables["cost"] for study in studies}
    costs = {title: part for title, part in costs.items() if _reached(part).any()}
    if not costs:
        return style.only_text("no run reaches a target")
    drawn = pd.concat([part[_reached(part)] for part in costs.values()])
    seconds, unit = time_unit(drawn["seconds_high"].max())
    money, sum_of = money_unit(drawn["money"].max(), currency)
    figure = style.new(0.85 + 0.135 * sum(len(part) + 1 for part in costs.values()))
    panels = figure.subplots(1, 2, sharey=True)
    places: list[tuple[float, str]] = []
    height = 0.0
    for title, part in costs.items():
        style.heading(panels[0], -height, title)
        best = frontier(part)
        for row in records(part):
            height += 1
            places.append((-height, label(row["run"])))
            _row(panels, -height, row, (seconds, money), is_best=row["run"] in best)
        height += 1
    panels[0].set_yticks([place for place, _ in places], [name for _, name in places], size=6)
    times = seconds * pd.concat([drawn[f"seconds{end}"] for end in ("", "_low", "_high")])
    for axes, values, words in (
        (panels[0], times, f"{unit} to the target"),
        (panels[1], money * drawn["money"], sum_of),
    ):
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=words, ylim=(0.6 - height, 0.6))
        _scale(axes, values)
    handles = [
        Line2D([], [], color=BLUE, marker="o", linestyle="", label=words, mfc=face)
        for face, words in (
            (BLUE, "no other run of the study is both faster and cheaper"),
            ("white", "another is at least as fast and cheap"),
        )
    ]
    style.legend_below(figure, handles, ncols=2)
    return figure


def _row(
    panels: Sequence[Axes],
    height: float,
    row: dict[str, Any],
    factors: tuple[float, float],
    *,
    is_best: bool,
) -> None:
    """Draw the time, with its range over replicates, and the money of a run."""
    if reason := without_time(row):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # hides the grid
        place: dict[str, Any] = {"va": "center", "size": 6, "color": GREY, "bbox": box}
        place["transform"] = panels[0].get_yaxis_transform()
        panels[0].text(0.02, height, reason, **place)
        return
    face = BLUE if is_best else "white"
    seconds, money = factors
    ends = [seconds * row[f"seconds{end}"] for end in ("", "_low", "_high")]
    style.interval(panels[0], height, ends, LOOKS[0], markerfacecolor=face)
    panels[1].plot(money * row["money"], height, "o", color=BLUE, markerfacecolor=face)


def _scale(axes: Axes, values: pd.Series) -> None:
    """Make a horizontal axis logarithmic, with plain numbers, where no value is zero."""
    if not (values > 0).all():
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    steps = (1.0,) if values.max() > WIDE * values.min() else (1.0, 2.0, 5.0)
    axes.set_xlim(values.min() / 1.6, values.max() * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _reached(costs: pd.DataFrame) -> pd.Series:
    return pd.Series([not without_time(row) for row in records(costs)], costs.index, dtype=bool)
