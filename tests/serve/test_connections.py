"""Connections that keep the service waiting, and those beyond its room."""

from __future__ import annotations

import asyncio
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

import hostile
from medscale.serve.http.connections import allowed_open_files
from medscale.serve.http.repeats import MOST, PERIOD_S, Repeats
from medscale.serve.http.server import Server, configure, listen
from medscale.serve.http.settings import Settings
from stub_service import stub_service
from waiting import until_soon

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
Address = tuple[str, int]


def serve(task: Callable[[Address], Awaitable[None]], **settings: object) -> dict[str, float]:
    """Run a task while a service without processes listens; return its refusals by reason."""
    service = stub_service(**({"port": 0, "header_seconds": 0.4} | settings))

    async def main() -> None:
        with listen(service.settings) as listener:
            server = Server(configure(service), service)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                async with asyncio.timeout(120):
                    await task(listener.getsockname())
            finally:
                server.should_exit = server.force_exit = True
                await running

    asyncio.run(main())
    return {
        sample.labels["reason"]: sample.value
        for metric in service.metrics.refused.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


async def connect(
    address: Address, data: bytes = b"", source: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection(*address, local_addr=local)
    writer.write(data)
    return reader, writer


async def seconds_open(address: Address, data: bytes, further: bytes = b"") -> tuple[float, bytes]:
    """How long a connection stays open on which ``further`` is sent again and again."""
    begin = time.monotonic()
    reader, writer = await connect(address, data)
    received = b""
    with suppress(ConnectionError):
        while time.monotonic() - begin < 3:
            try:
                async with asyncio.timeout(0.1):
                    part = await reader.read(10_000)
            except TimeoutError:
                writer.write(further)
                continue
            if not part:
                break
            received += part
    writer.close()
    return time.monotonic() - begin, received


@pytest.mark.parametrize(
    ("data", "further"),
    [
        (b"", b""),  # nothing
        (b"GET / HT", b""),  # half a line
        (GET, b"X-Header: a\r\n"),  # headers without end
        (GET + b"\r\n" + GET, b"X-Header: a\r\n"),  # the second request
        (GET + b"Content-Length: 1000000\r\n\r\n", b"a"),  # a body that nobody reads
    ],
)
def test_a_request_that_does_not_end_is_cut_off(data: bytes, further: bytes) -> None:
    async def task(address: Address) -> None:
        seconds, received = await seconds_open(address, data, further)
        assert 0.3 < seconds < 60
        assert received.count(b"HTTP/1.1 200") == data.count(b"\r\n\r\n")

    assert serve(task)["slow"] == 1


def test_a_caller_that_does_not_read_is_cut_off() -> None:
    async def task(address: Address) -> None:
        request = b"GET /static/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader, writer = await connect(address)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request * 3000)  # more answers than the system's buffers hold
        for _ in range(100):
            await asyncio.sleep(0.05)
            if writer.is_closing() or reader.at_eof():
                return
            with suppress(ConnectionError):
                writer.write(b"GET")
                await writer.drain()
        pytest.fail("it is still open")

    serve(task, send_seconds=0.5)


def test_a_caller_takes_half_of_the_connections_and_others_are_served() -> None:
    async def task(address: Address) -> None:
        half_sent = [await connect(address, GET, "127.0.0.1") for _ in range(30)]

        def refused() -> list[asyncio.StreamReader]:
            return [reader for reader, _ in half_sent if reader._buffer]  # type: ignore[attr-defined]

        await until_soon(lambda: len(refused()) >= 20, "the connections beyond half are refused")
        assert len(refused()) == 20
        assert (await refused()[0].read(1000)).startswith(b"HTTP/1.1 503 ")
        reader, writer = await connect(address, GET + b"\r\n", "127.0.0.2")
        assert (await reader.readline()).split()[1] == b"200"
        for _, client_writer in [*half_sent, (reader, writer)]:
            client_writer.close()

        async def is_served() -> bool:
            reader, writer = await connect(address, GET + b"\r\n", "127.0.0.1")
            status = (await reader.readline()).split()[1]
            writer.close()
            return status == b"200"

        while not await is_served():  # the server has not seen yet that the others are closed
            await asyncio.sleep(0.01)

    assert serve(task, connections=20, header_seconds=60)["connections"] >= 20


def test_a_trusted_proxy_stands_for_many() -> None:
    async def task(address: Address) -> None:
        connections = [await connect(address, GET, "127.0.0.1") for _ in range(20)]
        await asyncio.sleep(0.2)
        assert not any(reader._buffer for reader, _ in connections)  # type: ignore[attr-defined]
        reader, _ = await connect(address, GET + b"\r\n", "127.0.0.1")
        assert (await reader.readline()).split()[1] == b"503"
        for _, writer in connections:
            writer.close()

    serve(task, connections=20, header_seconds=5, proxies=("127.0.0.1",))


async def statuses(address: Address, source: str, forwarded: list[str]) -> list[int]:
    """Statuses of predictions for which a proxy at ``source`` names callers."""
    body = hostile.part(b"a.jpg") + hostile.END
    result = []
    for name in forwarded:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {name}\r\n"
            f"Content-Type: multipart/form-data; boundary={hostile.BOUNDARY}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        reader, writer = await connect(address, head.encode() + body, source)
        result.append(int((await reader.readline()).split()[1]))
        writer.close()
    return result


@pytest.mark.parametrize(
    ("proxies", "source", "forwarded", "client_address"),
    [
        # Behind a trusted proxy each caller has a rate.
        (["127.0.0.3"], "127.0.0.3", ["192.0.2.1", "192.0.2.2", "192.0.2.1"], [200, 200, 429]),
        # What a caller writes before the proxy's word does not count.
        (["127.0.0.3"], "127.0.0.3", ["8.8.8.8, 192.0.2.1", "9.9.9.9, 192.0.2.1"], [200, 429]),
        (["127.0.0.0/30"], "127.0.0.3", ["192.0.2.1, 127.0.0.2", "192.0.2.1"], [200, 429]),
        # A network of IPv6 is one caller, with or without a port.
        (["127.0.0.3"], "127.0.0.3", ["[2001:db8::1]:4", "2001:db8::2"], [200, 429]),
        # Others are not believed.
        (["127.0.0.3"], "127.0.0.4", ["192.0.2.1", "192.0.2.2"], [200, 429]),
        ([], "127.0.0.3", ["192.0.2.1", "192.0.2.2"], [200, 429]),
    ],
)
def test_callers_behind_a_proxy_are_distinguished(
    proxies: list[str], source: str, forwarded: list[str], client_address: list[int]
) -> None:
    async def task(address: Address) -> None:
        assert await statuses(address, source, forwarded) == client_address

    serve(task, proxies=proxies, rate=0.01, burst=1)


def test_a_proxy_of_ipv4_is_known_on_a_socket_for_both() -> None:
    settings = Settings(results=(Path(),), proxies=("192.0.2.0/24",))
    assert settings.trusted == [IPv4Network("192.0.2.0/24"), IPv6Network("::ffff:c000:200/120")]
    with pytest.raises(ValueError, match="proxies"):
        Settings(results=(Path(),), proxies=("*",))


def test_the_limit_of_open_files_is_raised_or_named() -> None:
    program = """
import resource, sys
from pathlib import Path
from medscale.base.errors import MedscaleError
from medscale.serve.http.connections import allowed_open_files
from medscale.serve.http.settings import Settings
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 2000))
with allowed_open_files(Settings(results=(Path(),), connections=1000)):
    print(resource.getrlimit(resource.RLIMIT_NOFILE))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
try:
    allowed_open_files(Settings(results=(Path(),), connections=3000)).__enter__()
except MedscaleError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert output[:2] == ["(1176, 2000)", "(100, 2000)"]
    assert "--connections" in output[2]
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with allowed_open_files(Settings(results=(Path(),), connections=2)):
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft


def test_messages_of_any_library_are_limited_while_a_service_runs() -> None:
    """The parser of forms logs a line for each malformed form, which callers can send."""
    program = """
import logging
from medscale.base.log import log, set_up
from medscale.serve.http.repeats import limited_repeats
set_up()
library = logging.getLogger("python_multipart.multipart")
with limited_repeats():
    for number in range(50):
        library.warning("Expected boundary character %d", number)
        log.warning("a process was lost")
library.warning("Expected boundary character %d", 50)
log.warning("a process was lost")
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stderr.splitlines()
    assert len(output) == 2 * (MOST + 1)
    assert output[-2:] == ["Expected boundary character 50", "a process was lost"]


def test_what_repeats_is_logged_a_few_times_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    logger = logging.getLogger("repeated")  # one that no service of another test has limited
    limit = Repeats(lambda: clock[0])
    logger.addFilter(limit)
    try:
        for number in range(5000):
            logger.error("socket.accept() out of system resource\nsocket: %d", number)
        logger.error("another message")
        clock[0] = PERIOD_S + 1
        logger.error("socket.accept() out of system resource\nsocket")
    finally:
        logger.removeFilter(limit)
    assert len(caplog.records) == MOST + 2
    assert "not logged again within 60 s" in caplog.records[MOST - 1].getMessage()
