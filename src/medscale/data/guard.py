"""Decoding of files in a child process with limits, so that a hostile file crashes only the child.

A Dask worker has one child for each thread that decodes, and sends it one call at a time. A child
that dies is replaced, and its file is reported as undecodable.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar, cast

from medscale.data.decoding import bounds
from medscale.data.decoding.formats import TOO_LARGE, UNDECODABLE, Unreadable
from medscale.data.settings import Limits

ENVIRONMENT = {
    # By default, glibc returns freed memory to the system at once, which then zeroes the pages for
    # the next image. This took a quarter of the time (bench/workers.py).
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_idle: list[Child] = []  # children of this process; a thread takes a child for a call


class Child:
    """A process that answers calls within limits."""

    def __init__(self, limits: Limits) -> None:
        """Start the process; it loads its modules while this process continues."""
        self.limits, self._owner = limits, os.getpid()
        path = os.pathsep.join(folder for folder in sys.path if folder)
        self._pipe, end = Pipe()
        # -P: modules of the working folder, which may hold files of other users, are not imported.
        command = [sys.executable, "-P", "-m", "medscale.data.guard", limits.model_dump_json()]
        self._process = subprocess.Popen(
            [*command, str(end.fileno())],
            pass_fds=[end.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # output of libraries goes to stderr
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
        )
        end.close()

    @property
    def is_alive(self) -> bool:
        """Whether the child runs and belongs to this process (a fork only shares its pipe)."""
        return self._owner == os.getpid() and self._process.poll() is None

    def ask(self, request: Any) -> tuple[bool, Any]:
        """Send a request and return whether it succeeded, and its result or its exception.

        Raises:
            EOFError: the process has ended.
        """
        try:
            self._pipe.send(request)
            return cast("tuple[bool, Any]", self._pipe.recv())
        except OSError:  # it ended while a message was on the way
            raise EOFError from None

    def close(self) -> int:
        """End the process; return its exit status, or the negative number of the ending signal."""
        if self._owner != os.getpid():
            return 0
        self._pipe.close()
        return self._process.wait()


def call(
    limits: Limits,
    function: Callable[Parameters, Result],
    *arguments: Parameters.args,
    **keywords: Parameters.kwargs,
) -> Result:
    """Call a function of a module in this thread's child process and return its result.

    Args:
        limits: limits of the child.
        function: function that decodes one file; its result and exceptions can be pickled.
        arguments: positional arguments of the function.
        keywords: keyword arguments of the function.

    Raises:
        Unreadable: when the file needs more memory or time than the limits, or the child crashes.
        Exception: any exception of the function.
    """
    child = _take(limits)
    try:
        succeeded, result = child.ask((function, arguments, keywords))
    except EOFError:
        raise _fault(child.close(), limits) from None
    _idle.append(child)
    if not succeeded:
        raise result
    return cast(Result, result)


def warm_up(limits: Limits, function: Callable[..., Any]) -> None:
    """Start a child process that imports the modules of a function."""
    call(limits, _load, function)


def _load(function: Callable[..., Any]) -> None:
    """Do nothing: the modules of ``function`` are imported when it arrives in the child."""


def _take(limits: Limits) -> Child:
    """Return an idle child process with these limits, or a new one."""
    while _idle:
        child = _idle.pop()  # list.pop is atomic, so that threads share no child
        if child.limits == limits and child.is_alive:
            return child
        child.close()
    return Child(limits)


def _fault(status: int, limits: Limits) -> Unreadable:
    """Return the fault of a file whose decoding ended the process."""
    if status == -signal.SIGPROF:
        detail = f"decoding it takes more than {limits.seconds:g} s of computing"
        return Unreadable(UNDECODABLE, detail)
    cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return Unreadable(UNDECODABLE, f"decoding it ended the process that reads it ({cause})")


def _work(limits: Limits, pipe: Connection) -> None:
    """Answer calls until the parent closes its end of the pipe; runs in the child."""
    bounds.limit_process(limits.max_pixels, limits.seconds)
    while True:
        try:
            function, arguments, keywords = pipe.recv()
        except EOFError:
            return
        try:
            bounds.start_clock()
            answer: tuple[bool, Any] = True, function(*arguments, **keywords)
        except MemoryError:
            answer = False, Unreadable(TOO_LARGE, bounds.NO_MEMORY)
        except Exception as error:  # raised again by the parent
            answer = False, error
        finally:
            bounds.stop_clock()
        pipe.send(answer)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, ConnectionError):  # the parent ends as well
        _work(Limits.model_validate_json(sys.argv[1]), Connection(int(sys.argv[2])))
