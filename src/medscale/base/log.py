"""Progress messages: formatted on a terminal, lines with the time of day in a log file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
log = logging.getLogger("medscale")


def set_up(file: str | Path | None = None, *, quiet: bool = False) -> logging.Logger:
    """Send the package's log to stderr and append it to ``file``; return the logger."""
    log.handlers.clear()
    log.setLevel(logging.INFO)
    log.propagate = False
    if not quiet:
        log.addHandler(_terminal())
    if file is not None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8")
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
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


def track(items: Iterable[T], name: str, total: int) -> Iterator[T]:
    """Iterate with a progress bar on a terminal, and a line for each tenth in a log.

    Args:
        items: what is iterated.
        name: what the items are, for the bar; without it nothing is shown.
        total: number of items.
    """
    if not name:
        yield from items
        return
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
        ) as bar:
            yield from bar.track(items, total=total, description=name)
        return
    step = max(1, total // 10)
    for done, item in enumerate(items, start=1):
        yield item
        if done % step == 0 or done == total:
            log.info("%s: %d of %d", name, done, total)


def _terminal() -> logging.Handler:
    if sys.stderr.isatty():
        return RichHandler(
            console=Console(stderr=True), show_path=False, show_level=False, markup=False
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
