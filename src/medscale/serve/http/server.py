"""`medscale serve`: the service on a port, until it is told to stop; what was accepted is answered before."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.serve.http.app import create_app
from medscale.serve.http.service import Service
from medscale.serve.http.settings import Settings

BACKLOG = 1024
KEEP_ALIVE_S = (
    75  # longer than callers hold connections: one that closes as a request comes would break it
)


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``tell`` is given the address when requests are answered there.

    Raises:
        MedscaleError: when the port is taken, everyone could ask without a key, or a model cannot be loaded.
    """
    if settings.key is None and not settings.on_loopback:
        raise MedscaleError(
            f"on {settings.host} anyone in the network could ask; set a key with --key-file, or stay on 127.0.0.1"
        )
    with listening(settings) as opened:
        asyncio.run(_serve(settings, opened, tell))


def listening(settings: Settings) -> socket.socket:
    """A socket bound to the address.

    Raises:
        MedscaleError: when it cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        opened = socket.socket(family)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        raise MedscaleError(
            f"{settings.host}, port {settings.port}: {error.strerror or error}; choose another with --port"
        ) from None
    return opened


async def _serve(settings: Settings, opened: socket.socket, tell: Callable[[str], None]) -> None:
    service = Service(settings)
    await service.start()
    config = uvicorn.Config(
        create_app(service),
        lifespan="off",  # the service has started
        log_config=None,
        access_log=False,  # nothing is said of who asked for what
        server_header=False,
        ws="none",
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.stop_seconds,
    )
    server = Server(config, service)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    tell(f"http://{host}:{opened.getsockname()[1]}")
    # uvicorn raises the signals again that it has stopped at, which here are done with then
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        await server.serve(sockets=[opened])
    finally:
        await service.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class Server(uvicorn.Server):
    """Uvicorn's server; as it is told to stop, the service says that it is not ready any more."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in order; a second SIGINT stops at once."""
        if not self._service.stopping:
            log.info(
                "stopping: %d accepted images are answered before", self._service.admission.images
            )
        self._service.stopping = True
        super().handle_exit(sig, frame)
