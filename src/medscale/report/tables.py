"""Tables as LaTeX, made from columns that each name their heading and format their cells."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from medscale.base.text import latex, truncate, visible
from medscale.report.latex import number, significant, span, stacked, tabular
from medscale.report.names import class_name, label

LONGEST_NAME = 60  # letters of a class name in a table, which has no lines to break it into
DAGGER = r"\textsuperscript{\textdagger}"  # CPU processes in place of GPUs
Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column: alignment (l, r, c or p{…}), heading (LaTeX) and the cell of a row (LaTeX)."""

    align: str
    heading: str
    cell: Callable[[Any], str]


class Heading(str):
    """A row of a table that is one heading over all columns (LaTeX)."""


def left(heading: str, cell: Callable[[Any], str]) -> Column:
    """Return a column of text."""
    return Column("l", heading, cell)


def right(heading: str, cell: Callable[[Any], str]) -> Column:
    r"""Return a column of numbers; ``\\`` breaks its heading."""
    return Column("r", stacked(heading), cell)


def table(
    rows: Iterable[Any],
    columns: Sequence[Column],
    *,
    otherwise: str = "",
    further: Sequence[Sequence[str]] = (),
    rules_after: Sequence[int] = (),
) -> str:
    """Return a booktabs table.

    Args:
        rows: a row each, as the cells of the columns take it; a ``Heading`` stands over them.
        otherwise: text of the first cell where there are no rows.
        further: cells (LaTeX) of rows at the end.
        rules_after: numbers of rows below which a thin rule is drawn.
    """
    cells = [
        [row] if isinstance(row, Heading) else [column.cell(row) for column in columns]
        for row in rows
    ]
    cells += [list(row) for row in further]
    if not cells and otherwise:
        cells = [[otherwise, *["--"] * (len(columns) - 1)]]
    return tabular([(column.align, column.heading) for column in columns], cells, rules_after)


def short_name(text: Any, longest: int = LONGEST_NAME) -> str:
    """Return the LaTeX of a user's name in a table's cell, shortened if it is very long."""
    return latex(truncate(visible(str(text)), longest))


def wrapped(heading: str, width: str, cell: Callable[[Any], str]) -> Column:
    """Return a column of text that is broken into lines at a width, such as "4cm"."""
    return Column(rf">{{\raggedright\arraybackslash}}p{{{width}}}", heading, cell)


def class_cell(text: Any) -> str:
    """Return the LaTeX of a class name for readers (``class_name``) in a table's cell."""
    return short_name(class_name(str(text)))


def by_run(cell: Callable[[str], Any] = label) -> Callable[[Row], str]:
    """Return a cell that names the run of a row, its number format, and stand-ins by a dagger."""

    def cell_text(row: Row) -> str:
        words = ", ".join([str(cell(row["run"])), *filter(None, [row.get("format")])])
        return latex(words) + (DAGGER if row.get("stand_in") else "")

    return cell_text


def interval(score: Row, digits: int, scale: float = 1, prefix: str = "") -> str:
    """Return a mean and its interval: "87.1 (84.0--90.2)"; a mean without one stands alone."""
    return _with_interval(
        [score[f"{prefix}{key}"] for key in ("mean", "low", "high")], digits, scale
    )


def scored(heading: str, metric: str, digits: int, scale: float = 1) -> Column:
    """Return a column of a metric's mean and interval, from the columns ``<metric>_mean`` etc."""
    return right(heading, lambda row: interval(row, digits, scale, f"{metric}_"))


def around(row: Row, column: str, digits: int, scale: float = 1) -> str:
    """Return a column's value and its interval from the columns ``_low`` and ``_high``.

    A value without an interval stands alone.
    """
    return _with_interval([row[f"{column}{end}"] for end in ("", "_low", "_high")], digits, scale)


def _with_interval(ends: Sequence[float], digits: int, scale: float) -> str:
    value, low, high = ends
    text = number(value, digits, scale)
    if pd.isna(low) and pd.isna(high):
        return text
    return f"{text} ({span(low, high, digits, scale)})"


def ranged(row: Row, column: str, digits: int | None = None) -> str:
    """Return a column's value and its range, as ``with_range``."""
    return with_range(row[column], row[f"{column}_low"], row[f"{column}_high"], digits)


def with_range(value: float, low: float, high: float, digits: int | None = None) -> str:
    """Return a number and its range, if any, with three significant digits or with decimals."""
    if value != value:
        return "--"
    texts = [
        significant(end) if digits is None else number(end, digits) for end in (value, low, high)
    ]
    return texts[0] if low == high else f"{texts[0]} ({'--'.join(texts[1:])})"
