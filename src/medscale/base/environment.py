"""Temporary changes of environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_environment(**changes: str) -> Iterator[None]:
    """Set variables during the block; then restore all, also those that libraries changed."""
    before = dict(os.environ)
    os.environ |= changes
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before
