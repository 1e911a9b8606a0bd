"""Progress messages: formatted on a terminal, and lines with a time in a log file.

The modules of rich are imported on a terminal alone: ``snakemake -n`` reads this module.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from medscale.base.errors import QUIET_VARIABLE, LogFile
from medscale.base.text import terminal

T = TypeVar("T")
log = logging.getLogger("medscale")


class Formatter(logging.Formatter):
    """A formatter of logs that escapes control characters, as in file names."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return terminal(super().format(record), lines=True)


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
        handler = LogFile(file, encoding="utf-8")
        handler.setFormatter(
            Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )
        log.addHandler(handler)
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.handlers.clear()
    warnings.handlers += [h for h in log.handlers if isinstance(h, LogFile)] or [
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
        from medscale.base.console import progress_bar

        yield from progress_bar(items, name, total)
        return
    step = max(1, -(-total // 10))
    for number, item in enumerate(items, start=1):
        yield item
        if number % step == 0 or number == total:
            log.info("%s: %d of %d", name, number, total)


def _terminal() -> logging.Handler:
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        from medscale.base.console import Terminal

        handler: logging.Handler = RichHandler(
            console=Terminal(stderr=True), show_path=False, show_level=False, markup=False
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("%(message)s"))
    return handler
