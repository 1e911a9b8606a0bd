"""Waits for events, however long a busy machine takes, in the place of fixed times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LIMIT_S = 120  # far beyond what a busy machine takes, and less than a stuck test should cost


def until(condition: Callable[[], object], event: str) -> None:
    """Wait until a condition holds; fail with the name of the missing event."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"not within {LIMIT_S} s: {event}"
        time.sleep(0.01)


async def until_soon(condition: Callable[[], object], event: str) -> None:
    """Wait as ``until`` does, in an event loop; let its other tasks run once in any case."""
    end = time.monotonic() + LIMIT_S
    await asyncio.sleep(0.01)
    while not condition():
        assert time.monotonic() < end, f"not within {LIMIT_S} s: {event}"
        await asyncio.sleep(0.01)
