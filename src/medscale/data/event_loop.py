"""The event loop of Dask's clusters and clients in this process."""

import asyncio
import os
from concurrent.futures import Future
from functools import cache
from threading import Thread
from typing import Any

from tornado.ioloop import IOLoop

from medscale.base.interrupts import blocked
from medscale.base.log import log


def event_loop() -> IOLoop:
    """Return this process's event loop, which runs in a thread until the process ends.

    Dask starts a loop for each cluster and client otherwise, and fails where a busy machine takes
    more than ten seconds for that.
    """
    return _event_loop(os.getpid())


@cache
def _event_loop(pid: int) -> IOLoop:
    """Start an event loop in a thread.

    ``pid``: number of this process, by which the loop is cached. A forked process has no threads of
    its parent and needs a loop of its own.
    """
    started: Future[IOLoop] = Future()

    async def serve() -> None:
        # Such errors come from connections that were open when a cluster closed. Other errors are
        # raised where the result of a call is awaited.
        asyncio.get_running_loop().set_exception_handler(_log_unseen)
        started.set_result(IOLoop.current())
        await asyncio.Event().wait()

    name = f"event loop of Dask in process {pid}"
    with blocked():  # the thread and the workers that it starts inherit the signal mask
        Thread(target=asyncio.run, args=(serve(),), name=name, daemon=True).start()
    return started.result()


def _log_unseen(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of a task that no caller awaits; asyncio would print it with its traceback."""
    log.debug("Dask: %s", context.get("exception") or context["message"])
