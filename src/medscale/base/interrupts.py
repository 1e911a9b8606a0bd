"""Signals whose delivery is delayed while processes and threads start."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def blocked(numbers: Iterable[signal.Signals] = (signal.SIGINT,)) -> Iterator[None]:
    """Block signals in this thread until the context ends; they are delivered then.

    Threads and processes that start within the context inherit the signal mask and keep it for
    their whole life. A terminal sends Ctrl-C to all of its processes, and would end these with a
    traceback; the process that started them ends them instead.

    Args:
        numbers: the signals, by default SIGINT, which is that of Ctrl-C.
    """
    # multiprocessing starts the tracker with its first process, and then unblocks SIGINT and
    # SIGTERM.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
