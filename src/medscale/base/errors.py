"""The error that users see: what is wrong, where, and what to do; any other exception is a bug."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

EXIT_USER = 2


class MedscaleError(Exception):
    """Bad input, a missing prerequisite or a failed run; its message is all that a user sees."""


class Stopped(MedscaleError):
    """A run was asked to stop and has saved a checkpoint; the same command continues it."""


def tell_user(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that a MedscaleError is printed as one message and exits with status 2."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        end_quickly()
        try:
            return command(*args, **kwargs)
        except MedscaleError as error:
            print(f"medscale: error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_USER) from None

    return wrapped


def end_quickly() -> None:
    """Skip the last garbage collection of this process: with torch imported it takes a second."""
    atexit.register(gc.freeze)
