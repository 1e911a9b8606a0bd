"""Environment variables that are set for a part of the program alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_environment(**changes: str) -> Iterator[None]:
    """Set variables, and put all variables back at the end, also those that libraries change."""
    before = dict(os.environ)
    os.environ |= changes
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before
