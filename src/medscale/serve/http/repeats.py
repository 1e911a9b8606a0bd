"""A limit on messages that repeat in the log: callers must not be able to fill the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medscale.base.log import log

MOST, PERIOD_S = 10, 60.0  # repetitions of a message within a period
MESSAGES = 1000  # distinct messages that are counted


class Repeats(logging.Filter):
    """Lets a message pass ``MOST`` times in ``PERIOD_S`` seconds; the last one says so.

    Messages are the same if their templates have the same first line; later lines differ by caller.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the log."""
        message = str(record.msg).partition("\n")[0]
        key, now = (record.name, message), self._now()
        since, count = self._counts.get(key, (now, 0))
        if now - since >= PERIOD_S:
            since, count = now, 0
        if len(self._counts) >= MESSAGES:
            self._counts.clear()
        self._counts[key] = since, count + 1
        if count + 1 == MOST:
            record.msg = f"{record.msg} (not logged again within {PERIOD_S:.0f} s)"
        return count < MOST


@contextmanager
def limited_repeats() -> Iterator[None]:
    """Limit the messages that this process logs, while a service runs in it.

    The limit is that of handlers, since libraries have loggers with many names: the package's
    handlers, and Python's last resort, which prints the messages of libraries.
    """
    limits = [(handler, Repeats()) for handler in (logging.lastResort, *log.handlers) if handler]
    for handler, limit in limits:
        handler.addFilter(limit)
    try:
        yield
    finally:
        for handler, limit in limits:
            handler.removeFilter(limit)
