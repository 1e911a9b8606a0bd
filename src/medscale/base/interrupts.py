"""Signals that wait while processes and threads start."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals to this thread wait until the context ends.

    Threads and processes that start within the context inherit that for their whole life. Ctrl-C
    reaches all processes of a terminal, and would end these with a traceback; the process that
    started them ends them instead.

    Args:
        numbers: the signals; without any, SIGINT (Ctrl-C).
    """
    # multiprocessing starts it with the first process, and then unblocks SIGINT and SIGTERM.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers or (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
