"""Limits on connections: how many may be open, and how long each may keep the service waiting.

Uvicorn limits neither the time for headers nor the number of connections before a request is read.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from medscale.base.errors import MedscaleError
from medscale.serve.http.metrics import Metrics
from medscale.serve.http.settings import Settings
from medscale.serve.http.share import Room, caller_of

# Open files besides connections: the log, libraries, and pipes to each process.
FILES, FILES_OF_A_PROCESS = 128, 16


def _message(status: str, text: str, *headers: str) -> bytes:
    """Return a response for a connection without a request, for which no application runs."""
    body = text.encode("ascii")
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


BUSY = _message(
    "503 Service Unavailable", "too many connections are open; try again\n", "Retry-After: 2"
)
LATE = _message("408 Request Timeout", "the request did not arrive in time; send it again\n")


class Connections:
    """The limits that all connections share: their number and their times.

    Args:
        settings: of the service.
        metrics: which count refused connections.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.room = Room(settings.connections)

    def caller(self, host: str) -> str | None:
        """Return the name of a caller; None for a trusted proxy, which stands for many callers."""
        try:
            address = ip_address(host)
        except ValueError:
            return host
        if any(address in network for network in self.settings.trusted):
            return None
        return caller_of(host)


class Connection(H11Protocol):
    """A connection of uvicorn that is closed when its caller keeps the service waiting.

    A request's headers must arrive within ``header_seconds``, and the caller must receive the bytes
    of an answer within ``send_seconds``. ``upload.read`` limits the time for a body, the service
    the time for an answer. A body that the application does not read has as much time as headers.

    Args:
        limits: shared by all connections of the service.
        options: of uvicorn's protocol.
    """

    def __init__(self, limits: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._limits, self._caller, self._is_admitted = limits, cast("str | None", None), False
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit a connection, or close it if too many are open."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that unsent bytes pause writing at once
        self._caller = self._limits.caller(self.client[0] if self.client else "")
        if self._limits.room.take(self._caller, 1) is not None:
            self._limits.metrics.refused.labels("connections").inc()
            self._end(BUSY)
            return
        self._is_admitted = True
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the connection's place back."""
        self._stop_receiving()
        self._stop_sending()
        if self._is_admitted:
            self._is_admitted = False
            self._limits.room.give_back(self._caller, 1)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; a caller that has begun a request must go on."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_receiving()
        elif not self.transport.is_closing():
            self._await_request()

    def pause_writing(self) -> None:
        """Give the caller a time to receive what could not be sent at once."""
        super().pause_writing()
        if self._sending is None:
            seconds = self._limits.settings.send_seconds
            self._sending = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock, since everything has been sent."""
        self._stop_sending()
        super().resume_writing()

    def _await_request(self) -> None:
        if self._receiving is None:
            seconds = self._limits.settings.header_seconds
            self._receiving = self.loop.call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        self._receiving = None
        self._limits.metrics.refused.labels("slow").inc()
        self._end(LATE if self.conn.our_state is h11.IDLE else b"")

    def _end(self, message: bytes) -> None:
        """Close the connection after a message; a caller that does not receive it is cut off."""
        if self.transport.is_closing():
            return
        self.transport.write(message)
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None


@contextmanager
def allowed_open_files(settings: Settings) -> Iterator[None]:
    """Raise this process's limit of open files (``ulimit -n``) to what its connections need.

    Raises MedscaleError when the system does not allow as many.
    """
    processes = settings.workers + settings.decoders
    files = settings.connections + FILES + FILES_OF_A_PROCESS * processes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        yield
        return
    if hard != resource.RLIM_INFINITY and hard < files:
        raise MedscaleError(
            f"{settings.connections} connections and {processes} processes need {files} open"
            f" files, and this system allows {hard}; give a smaller --connections, or ask the"
            " administrator to raise the limit (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
