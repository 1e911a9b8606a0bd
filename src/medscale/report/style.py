"""The look of all figures: vector PDF with embedded fonts, the same bytes for the same data."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from medscale.base.files import atomic
from medscale.base.text import truncate, visible
from medscale.report.names import GREY, VERMILION, Look, class_name

WIDTH = 6.5  # inches: the paper's text width, so that letters have the size of the text's
STRIP = 0.18  # inches below a figure for its mark
DPI = 150  # of a PNG
METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": "medscale"},  # a date would change the bytes
    "png": {"Software": "medscale"},
}
FONT = "DejaVu Sans"
RC: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
}
ROW_TITLE = 80  # letters of a study's title above rows
REFERENCE: dict[str, Any] = {"color": GREY, "linewidth": 0.8}  # lines of no measurement


@contextmanager
def house() -> Iterator[None]:
    """Apply this style in place of the caller's settings of Matplotlib."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def new(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure; ``height`` and ``width`` are inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasPdf(figure)
    return figure


def save(figure: Figure, path: str | Path, mark: str = "", formats: str = "") -> None:
    """Write a figure as PDF or PNG, by the ending of ``path``.

    ``mark`` is printed below the figure at the right, the number ``formats`` at the left. A figure
    with text alone (``only_text``) has this text as the subject of the PDF, for other programs.
    """
    width, height = figure.get_size_inches()
    strip = STRIP if mark or formats else 0
    with house():
        place: dict[str, Any] = {"y": (0.02 - strip) / height, "va": "bottom", "size": 7}
        figure.text(x=0.995, s=mark, ha="right", color=VERMILION, **place)
        figure.text(x=0.005, s=formats, ha="left", color=GREY, **place)
        if layout := figure.get_layout_engine():
            layout.execute(figure)
        figure.set_layout_engine("none")
        for legend in figure.legends:  # otherwise they would move into the strip
            legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
        page = Bbox.from_extents(0, -strip, width, height)
        with atomic(path) as temporary:
            kind, reason = Path(path).suffix[1:], str(figure.get_label())
            metadata = METADATA[kind] | ({"Subject": reason} if reason and kind == "pdf" else {})
            figure.savefig(temporary, format=kind, dpi=DPI, bbox_inches=page, metadata=metadata)


def grid(count: int, columns: int) -> tuple[int, int]:
    """Return rows and columns for ``count`` panels, as even as ``columns`` a row allow."""
    rows = -(-count // columns)
    return rows, -(-count // rows)


def panels(figure: Figure, count: int, columns: int, rows_each: int = 1) -> list[list[Axes]]:
    """Return, for each of ``count`` items, a column of ``rows_each`` axes."""
    bands = -(-count // columns)
    axes = figure.subplots(bands * rows_each, columns, squeeze=False)
    items = [
        [axes[n // columns * rows_each + row, n % columns] for row in range(rows_each)]
        for n in range(bands * columns)
    ]
    for unused in (panel for column in items[count:] for panel in column):
        unused.remove()
    return items[:count]


def rows(axes: Axes, labels: Sequence[str]) -> np.ndarray:
    """Label a horizontal row for each item, the first on top; return the heights of the rows."""
    heights = np.arange(len(labels))[::-1]
    axes.set_yticks(heights, labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    return heights


def heading(axes: Axes, height: float, title: str) -> None:
    """Print the title of a study above its rows."""
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    axes.text(0.01, height, shorten(title, ROW_TITLE), size=6.5, weight="bold", **place)


def interval(axes: Axes, height: float, ends: Iterable[Any], look: Look, **options: Any) -> None:
    """Draw a value and its interval in a row of ``rows``.

    Args:
        ends: value, lower and upper end.
        options: further options of ``errorbar``.
    """
    value, low, high = (np.array([end], dtype=float) for end in ends)
    drawn: dict[str, Any] = {"color": look.colour, "marker": look.marker, "capsize": 2} | options
    axes.errorbar(value, height, xerr=errors(value, low, high), **drawn)


def score_ends(score: dict[str, Any], scale: float = 1) -> list[float]:
    """Return the mean and the interval of a metric of summary.json, NaN where undefined."""
    return [np.nan if score[end] is None else scale * score[end] for end in ("mean", "low", "high")]


def of_look(look: Look, **options: Any) -> dict[str, Any]:
    """Return Matplotlib's options for lines and markers with a look, and further ones."""
    return {"color": look.colour, "marker": look.marker, "linestyle": look.line} | options


def marker_of(points: int, marker: str = "o") -> str:
    """Return the marker of a line: none, but for a line of one point, which has no length."""
    return marker if points == 1 else ""


def column_ends(table: Any, column: str) -> list[np.ndarray]:
    """Return a column of a table and the ends of its range (columns ``_low`` and ``_high``)."""
    return [table[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high")]


def errors(center: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the lengths of error bars, shape 2,N, from the ends of intervals."""
    return np.clip(np.array([center - low, high - center]), 0, None)


def binary(axes: Axes, which: Literal["x", "y"], ticks: Any = None) -> None:
    """Make an axis logarithmic to the base 2, with plain numbers at ``ticks``."""
    getattr(axes, f"set_{which}scale")("log", base=2)
    if ticks is not None:
        axes.set(**{f"{which}ticks": ticks})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def devices(axes: Axes, counts: Any, title: str) -> None:
    """Make the horizontal axis one of numbers of devices or processes."""
    binary(axes, "x", counts)
    axes.set(xlim=(counts[0] * 0.85, max(counts[-1], 2) * 1.18), xlabel=title)


def shifts(lines: int) -> np.ndarray:
    """Return a factor for each line on its numbers of devices, so that no marker hides another."""
    return 2.0 ** np.linspace(-0.03, 0.03, lines) if lines > 1 else np.ones(lines)


def logarithmic(axis: Axis) -> None:
    """Label 1, 2 and 5 of each power of ten as plain numbers; the caller sets the scale."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def legend_beside(axes: Axes, *, alone: bool) -> None:
    """Put a panel's legend below it, or to its right where the panel is ``alone`` in the figure."""
    if alone:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2)


def legend_below(
    figure: Figure, handles: Sequence[Any], labels: Any = None, ncols: int = 4
) -> None:
    """Put the figure's legend below all panels."""
    names = {} if labels is None else {"labels": labels}
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": ncols, "columnspacing": 1.2}
    figure.legend(handles=handles, **names, **place)


def bare(axes: Axes) -> None:
    """Remove ticks and grid, for an image."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def empty(axes: Axes, reason: str) -> None:
    """Print in an empty panel why nothing is drawn."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color=GREY)


def only_text(reason: str) -> Figure:
    """Return a figure that says why nothing is drawn."""
    figure = new(1.2)
    figure.set_label(reason)
    empty(figure.subplots(), reason)
    return figure


def short_class(text: str, length: int = 26) -> str:
    """Return a class name for readers (``class_name``), shortened as by ``shorten``."""
    return shorten(class_name(text), length)


def shorten(text: str, length: int = 26) -> str:
    """Shorten a text; letters that the font lacks become their code, as [U+80BA]."""
    letters = (
        letter if ord(letter) in _glyphs() else f"[U+{ord(letter):04X}]" for letter in visible(text)
    )
    return truncate("".join(letters), length)


def legend_entry(text: str) -> str:
    """Return a class name for a legend, from which Matplotlib leaves out names such as _a."""
    return re.sub("^_", " _", broken(short_class(text, 60), 30))


def wrapped(text: str, length: int) -> str:
    """Break a class name into at most two lines of ``length`` letters."""
    lines = textwrap.wrap(short_class(text, 10 * length), length)
    return "\n".join([*lines[:1], *([shorten(" ".join(lines[1:]), length)] if lines[1:] else [])])


def broken(text: str, length: int) -> str:
    """Break a title into lines of at most ``length`` letters; nothing is left out."""
    return "\n".join(textwrap.wrap(shorten(text, 10 * length), length))


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())
