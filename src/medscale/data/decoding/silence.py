"""Silence of decoding libraries, whose findings are in the audit, while threads decode images."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

LOGGERS = ("pydicom", "tifffile")
_lock, _settings = Lock(), ExitStack()
_users = 0  # blocks that are being executed


@contextmanager
def silence() -> Iterator[None]:
    """Silence Python's warnings and ``LOGGERS`` of this process during the block.

    Threads may overlap: the caller's settings are kept when the first block begins, and put back
    when the last one ends. ``warnings.catch_warnings`` alone, which each thread ends on its own,
    would put back the settings of another thread, and all warnings would stay silent.
    """
    global _users
    with _lock:
        if not _users:
            _begin()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _settings.close()


def _begin() -> None:
    _settings.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    for logger in map(logging.getLogger, LOGGERS):
        _settings.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
