"""One look for all figures: vector PDF, embedded fonts, the same bytes from the same data, and the demo mark."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

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
from medscale.report.names import GREY, VERMILION

P = ParamSpec("P")
WIDTH = (
    6.5  # inches: the paper's text width, so that letters are as large in the figure as in the text
)
STRIP = 0.18  # inches below a figure, for its mark
DPI = 150  # of a PNG
METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": "medscale"},
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


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function under the house's style, whatever the caller's settings are."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _house():
            return draw(*args, **kwargs)

    return wrapped


def new(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of a size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasPdf(figure)
    return figure


def save(figure: Figure, path: str | Path, mark: str = "") -> None:
    """Write a figure as PDF or PNG (as the name ends), atomically, undated; ``mark`` stands below on its own strip."""
    width, height = figure.get_size_inches()
    strip = STRIP if mark else 0
    with _house():
        figure.text(
            0.995, (0.02 - strip) / height, mark, ha="right", va="bottom", size=7, color=VERMILION
        )
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for legend in figure.legends:  # else they would move into the strip
            legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
        page = Bbox.from_extents(0, -strip, width, height)
        with atomic(path) as temporary:
            kind = Path(path).suffix[1:]
            figure.savefig(
                temporary, format=kind, dpi=DPI, bbox_inches=page, metadata=METADATA[kind]
            )


def grid(count: int, across: int) -> tuple[int, int]:
    """Rows and columns for ``count`` panels, at most ``across`` a row and as even as can be."""
    rows = -(-count // across)
    return rows, -(-count // rows)


def panels(figure: Figure, count: int, columns: int, rows_each: int = 1) -> list[list[Axes]]:
    """Small multiples: for each of ``count`` items a column of ``rows_each`` axes; those left over are removed."""
    bands = -(-count // columns)
    axes = figure.subplots(bands * rows_each, columns, squeeze=False)
    each = [
        [axes[n // columns * rows_each + row, n % columns] for row in range(rows_each)]
        for n in range(bands * columns)
    ]
    for unused in (one for column in each[count:] for one in column):
        unused.remove()
    return each[:count]


def legend_beside(axes: Axes, *, alone: bool) -> None:
    """Put a panel's legend below it, or to its right where the panel is ``alone`` and has the whole width."""
    if alone:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2)


def logarithmic(axis: Axis) -> None:
    """Tell values at 1, 2 and 5 of each power of ten, as plain numbers; the scale itself is set by the caller."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def shorten(text: str, length: int = 26) -> str:
    """A class name that fits beside an axis; letters that the font lacks stand as their code, as [U+80BA]."""
    text = "".join(
        letter if ord(letter) in _glyphs() else f"[U+{ord(letter):04X}]" for letter in text
    )
    return text if len(text) <= length else text[: length - 1] + "…"


def wrapped(text: str, length: int) -> str:
    """A class name on at most two lines of ``length`` letters."""
    lines = textwrap.wrap(shorten(text, 10 * length), length)
    return "\n".join([*lines[:1], *([shorten(" ".join(lines[1:]), length)] if lines[1:] else [])])


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def empty(axes: Axes, why: str) -> None:
    """Say in an empty panel why nothing is drawn."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=GREY)


def errors(center: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Lengths of error bars, shape 2,N, from the ends of intervals."""
    return np.clip(np.array([center - low, high - center]), 0, None)


@contextmanager
def _house() -> Iterator[None]:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield
