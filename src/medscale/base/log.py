"""Progress messages: formatted on a terminal, and lines with a time in a log file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from medscale.base.errors import QUIET_VARIABLE
from medscale.base.text import terminal

T = TypeVar("T")
log = logging.getLogger("medscale")


UNLIMITED_WIDTH = 100_000  # columns; wider than any table
# Of the 256-colour palette, with a contrast above 3.5 on black and on white: a terminal's own
# yellow and green are not legible on white, nor its blue on black.
COLOURS = {"green": "color(28)", "yellow": "color(130)", "red": "color(160)", "blue": "color(31)"}
COLOURS |= {  # of the parts of a progress bar
    "progress.download": COLOURS["green"],
    "progress.elapsed": COLOURS["yellow"],
    "progress.remaining": COLOURS["blue"],
}


class Terminal(Console):
    """A console of rich that escapes control characters in texts."""

    def __init__(self, *, stderr: bool = False, fits_terminal: bool = True) -> None:
        """Open stdout or stderr.

        Args:
            stderr: whether to open stderr instead of stdout.
            cropped: whether tables are fitted to the terminal's width. Otherwise lines are as long
                as their texts, so that a path or a command in them can be copied.
        """
        width = None if fits_terminal else UNLIMITED_WIDTH
        super().__init__(
            stderr=stderr,
            highlight=False,
            soft_wrap=True,
            emoji=False,
            width=width,
            theme=Theme(COLOURS),
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, without blanks at the end of a table's lines."""
        parts = (_TrimmedTable(part) if isinstance(part, Table) else part for part in objects)
        super().print(*parts, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the escaped text of a line or a cell; rich calls this for each."""
        return super().render_str(terminal(text, lines=True), **options)


class _TrimmedTable:
    """A table without the blanks that rich adds at the end of lines."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._table, options, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                last = line.pop()
                line.append(Segment(last.text.rstrip(), last.style))
            yield from line
            yield Segment.line()


class Formatter(logging.Formatter):
    """A formatter of logs that escapes control characters, as in file names."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return terminal(super().format(record), lines=True)


def plain(text: str, *, lines: bool = False) -> str:
    """Return markup with which ``Terminal`` prints ``text`` literally.

    Args:
        text: any string.
        lines: whether line breaks and tabs stay (``text.terminal``).
    """
    return escape(terminal(text, lines=lines))


def set_up(file: str | Path | None = None, *, quiet: bool = False) -> logging.Logger:
    """Send the package's log to stderr and append it to ``file``; return the logger.

    Nothing is sent to stderr if ``quiet``, or if there is a file and ``QUIET_VARIABLE`` is set.
    """
    log.handlers.clear()
    log.setLevel(logging.INFO)
    log.propagate = False
    if not quiet and not (file is not None and is_quiet()):
        log.addHandler(_terminal())
    if file is not None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8")
        handler.setFormatter(
            Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )
        log.addHandler(handler)
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.handlers.clear()
    warnings.handlers += [h for h in log.handlers if isinstance(h, logging.FileHandler)] or [
        logging.NullHandler()
    ]
    warnings.propagate = False
    return log


def is_quiet() -> bool:
    """Whether this process is a job of a study whose progress is displayed."""
    return QUIET_VARIABLE in os.environ


def track(items: Iterable[T], name: str, total: int) -> Iterator[T]:
    """Iterate with a progress bar on a terminal, and a line for each tenth in a log.

    Args:
        items: the items.
        name: name of the items in the plural, for the bar; if empty, nothing is shown.
        total: number of items.
    """
    if not name:
        yield from items
        return
    if sys.stderr.isatty() and not is_quiet():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns, TimeRemainingColumn(), console=Terminal(stderr=True), transient=True
        ) as bar:
            yield from bar.track(items, total=total, description=name)
        return
    step = max(1, total // 10)
    for number, item in enumerate(items, start=1):
        yield item
        if number % step == 0 or number == total:
            log.info("%s: %d of %d", name, number, total)


def _terminal() -> logging.Handler:
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(
            console=Terminal(stderr=True), show_path=False, show_level=False, markup=False
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("%(message)s"))
    return handler
