"""Texts and tables of rich on the terminal, with control characters escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from medscale.base.text import terminal

T = TypeVar("T")
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
            fits_terminal: whether tables are fitted to the terminal's width. Otherwise lines are as
                long as their texts, so that a path or a command in them can be copied.
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


def plain(text: str, *, lines: bool = False) -> str:
    """Return markup with which ``Terminal`` prints ``text`` literally.

    Args:
        text: any string.
        lines: whether line breaks and tabs stay (``text.terminal``).
    """
    return escape(terminal(text, lines=lines))


def progress_bar(items: Iterable[T], name: str, total: int) -> Iterator[T]:
    """Iterate with a progress bar on stderr; arguments as of ``log.track``."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Terminal(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=name)
