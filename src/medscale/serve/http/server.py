"""The service on a port, until a signal stops it; accepted requests are answered first."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import cast

import uvicorn

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.serve.http.app import create_app
from medscale.serve.http.connections import Connection, Connections, allowed_open_files
from medscale.serve.http.repeats import limited_repeats
from medscale.serve.http.service import Service
from medscale.serve.http.settings import Settings

BACKLOG = 1024
# Longer than callers keep idle connections (usually 60 s): a connection that the service closes
# while a request arrives would break that request.
KEEP_ALIVE_S = 75


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises MedscaleError when the port is taken, a model cannot be loaded, other machines could use
    the service without a key, or the system does not allow as many connections.

    Args:
        settings: of the service.
        tell: is called with the address when the service is ready.
    """
    if settings.key is None and not settings.on_loopback:
        raise MedscaleError(
            f"on {settings.host} anyone in the network could use the service; set a key with"
            " --key-file, or stay on 127.0.0.1"
        )
    with (
        allowed_open_files(settings),
        limited_repeats(),
        listen(settings) as listener,
        suppress(asyncio.CancelledError),  # SIGTERM while the models are loaded
    ):
        asyncio.run(_serve(settings, listener, tell))


def listen(settings: Settings) -> socket.socket:
    """Return a socket that is bound to the address.

    Raises MedscaleError when the address does not exist or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        is_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        advice = "name an address of this machine with --host"
        raise MedscaleError(
            f"{settings.host}, port {settings.port}: {error.strerror or error}; "
            f"{advice if is_host else 'choose another with --port'}"
        ) from None
    return listener


async def _serve(settings: Settings, listener: socket.socket, tell: Callable[[str], None]) -> None:
    service = Service(settings)
    await _start(service)
    server = Server(configure(service), service)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    tell(f"http://{host}:{listener.getsockname()[1]}")
    # After it has stopped, uvicorn raises the signals again; they have done their work and are
    # ignored.
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        await server.serve(sockets=[listener])
    finally:
        await service.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


async def _start(service: Service) -> None:
    """Load the models; SIGTERM cancels this task meanwhile, as SIGINT does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await service.start()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def configure(service: Service) -> uvicorn.Config:
    """Return the configuration of uvicorn; the caller starts and stops the service."""
    settings = service.settings
    limits = Connections(settings, service.metrics)
    return uvicorn.Config(
        create_app(service),
        http=cast("type[asyncio.Protocol]", partial(Connection, limits)),
        lifespan="off",
        log_config=None,
        access_log=False,  # callers and their requests are not recorded
        server_header=False,
        ws="none",
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted],
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.stop_seconds,
    )


class Server(uvicorn.Server):
    """Uvicorn's server; from the first signal on, the service reports that it is not ready."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in order; a second SIGINT stops at once."""
        if not self._service.stopping:
            images = self._service.admission.images
            answered = {0: "", 1: ": an accepted image is answered first"}
            words = answered.get(images, f": {images} accepted images are answered first")
            log.info("stopping%s", words)
        self._service.stopping = True
        super().handle_exit(sig, frame)
