"""Shared parts of the chapters of the benchmarks: reading, pages, and curves by processes."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medscale.base.files import read_json, read_table
from medscale.measure.scaling.benchmarks import EAGER
from medscale.report import style
from medscale.report.names import GREY, label, numbered_look
from medscale.report.reported import read_reported
from medscale.report.result.reading import records
from medscale.report.writer import Pages

NONE = "--"  # a cell without a value
MANY_PROCESSES = "more processes than cores"


class Measured(NamedTuple):
    """A benchmark: its rows, settings and machine, and the study's published figures."""

    rows: pd.DataFrame
    about: dict[str, Any]
    reported: dict[str, Any]

    def labels(self, column: str) -> dict[str, str]:
        """Return the label of each way that was measured, in the order of measurement."""
        ways = self.about["ways"]
        names = map(str, self.rows[column].unique())
        return {name: ways[name]["label"] for name in names if name in ways}

    def pages(
        self,
        name: str,
        table: pd.DataFrame,
        figure: Figure,
        text: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Pages:
        """Return a chapter of one figure and one table; the table also tells marks and CPU.

        ``text``: the table as LaTeX, if the paper prints it.
        """
        marks = self.about["marks"]
        complete = table.assign(**marks, cpu=self.about["machine"]["cpu"])
        content = complete if text is None else (text, complete)
        return Pages(marks=[marks], figures={name: figure}, tables={name: content}, facts=facts)


def read(study: str, measured: str, about: str, reported: str) -> Measured:
    """Read a benchmark: rows (CSV), settings and machine (JSON), and published figures."""
    return Measured(read_table(measured), read_json(about), read_reported(reported, study))


def gains(rows: pd.DataFrame, column: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Return the speed against eager PyTorch and its range, an entry for each other way.

    ``column``: of the ways, whose ``labels`` are given.
    """
    return [
        {"run": label(row["run"]), "way": row[column], "label": labels[row[column]]}
        | {"gain": row["gain"], "low": row["gain_low"], "high": row["gain_high"]}
        for row in records(rows)
        if row[column] != EAGER
    ]


def draw_lines(
    panels: dict[str, Axes], table: pd.DataFrame, by: str, count: str, labels: dict[str, str]
) -> None:
    """Draw, in the panel of each column, a line for each group with its ranges.

    Groups are shifted a little, so that none hides another. Points of more processes than cores
    are hollow.
    """
    groups = list(table.groupby(by, sort=False))
    shifts = np.linspace(-0.05, 0.05, len(groups))
    for number, (shift, (name, part)) in enumerate(zip(shifts, groups, strict=True)):
        look = numbered_look(number)
        for column, axes in panels.items():
            rows = part[part[column].notna()].sort_values(count)
            bars = style.errors(*style.column_ends(rows, column))
            x, hollow = rows[count] * 2**shift, rows["oversubscribed"]
            axes.errorbar(x, rows[column], bars, **style.of_look(look, marker="", capsize=2))
            for points, face in ((~hollow, look.colour), (hollow, "white")):
                values = x[points], rows.loc[points, column]
                axes.plot(*values, look.marker, color=look.colour, markerfacecolor=face)
            axes.plot([], [], **style.of_look(look, label=labels[str(name)]))


def draw_legend(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    """Put the legend of a panel below the figure; explain hollow points where there are any."""
    handles, labels = axes.get_legend_handles_labels()
    if table["oversubscribed"].any():
        hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "linestyle": ""}
        handles.append(Line2D([], [], color=GREY, **hollow))
        labels.append(MANY_PROCESSES)
    style.legend_below(figure, handles, labels)
