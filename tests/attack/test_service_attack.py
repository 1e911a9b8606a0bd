"""Attacks that keep the service busy: another caller is answered all the while."""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

import hostile
from service_process import Service, make_results, picture, running_service
from slow_images import many_parts, progressive

pytestmark = pytest.mark.attack
OTHER_ADDRESS = "127.0.0.2"  # address of the caller that attacks nobody
LARGEST = 7000  # pixels a side: 49 of the 50 megapixels that are taken
PATIENCE_S = 25.0  # an answer needs 20 s at most for an image of another caller, and its own
FULL_LOG = 100_000  # bytes
IMAGES = 16


@dataclass
class OtherCaller:
    """What the caller that attacks nobody got."""

    answers: list[tuple[int, float]] = field(default_factory=list)  # status, seconds

    @property
    def bad(self) -> list[tuple[int, float]]:
        return [
            (status, seconds)
            for status, seconds in self.answers
            if status != 200 or seconds > PATIENCE_S
        ]


@contextmanager
def other_caller(service: Service) -> Iterator[OtherCaller]:
    """Send an image a second from another address until the block ends, at least twice."""
    caller, end = OtherCaller(), threading.Event()

    def run() -> None:
        transport = httpx.HTTPTransport(local_address=OTHER_ADDRESS)
        with httpx.Client(base_url=service.address, transport=transport, timeout=120) as client:
            while len(caller.answers) < 2 or not end.wait(1):
                begin, status = time.monotonic(), 0
                with suppress(httpx.HTTPError):
                    files = [("images", ("a.jpg", picture()))]
                    status = client.post("/v1/predict", files=files).status_code
                caller.answers.append((status, time.monotonic() - begin))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield caller
    finally:
        end.set()
        thread.join()


@contextmanager
def small_service(tmp_path: Path) -> Iterator[Service]:
    with running_service(make_results(tmp_path / "results"), tmp_path) as service:
        yield service
        assert service.process.poll() is None
        assert service.post(picture()).status_code == 200
    assert (tmp_path / "serve.log").stat().st_size < FULL_LOG


Record = Callable[[str, object], None]


@pytest.mark.parametrize("scans", [50, 400, 880])
def test_images_of_many_scans(tmp_path: Path, record_property: Record, scans: int) -> None:
    """One caller sends requests of sixteen such images; 50 scans are the most that are decoded."""
    images = [progressive(LARGEST, scans)] * IMAGES
    with small_service(tmp_path) as service, other_caller(service) as caller:
        begin = time.monotonic()
        with ThreadPoolExecutor(2) as threads:
            attacks = [threads.submit(service.post, *images, preview=True) for _ in range(2)]
            statuses = [attack.result().status_code for attack in attacks]
        seconds = time.monotonic() - begin
    record_property("tried", len(caller.answers))
    record_property("survived", len(caller.answers) - len(caller.bad))
    assert not caller.bad
    assert set(statuses) <= {200, 422}
    assert seconds < (30 if scans > 50 else 200)


def test_images_of_many_parts(tmp_path: Path, record_property: Record) -> None:
    """Files of 30 MB at the request's limit, of millions of parts."""
    files = {name: data for name, data in many_parts(400_000).items() if len(data) < 30_000_000}
    assert len(files) >= 6
    slow = []
    with small_service(tmp_path) as service, other_caller(service) as caller:
        for name, data in files.items():
            begin = time.monotonic()
            status = service.post(data).status_code
            if status not in (413, 422) or time.monotonic() - begin > 5:
                slow.append((name, status, time.monotonic() - begin))
    record_property("tried", len(files))
    record_property("survived", len(files) - len(slow))
    assert not slow
    assert not caller.bad


def connections_of(service: Service) -> int:
    connections = psutil.Process(service.process.pid).net_connections("tcp")
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in connections)


def wait_for(state: Callable[[], bool], seconds: float = 150) -> None:
    """Wait until a state is reached, or the time is up."""
    end = time.monotonic() + seconds
    while not state() and time.monotonic() < end:
        time.sleep(1)


SLOW = {
    "headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "nothing": b"",
    "second request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
    "unread body": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n",
    "body": (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n"
        b"Content-Type: multipart/form-data; boundary=" + hostile.BOUNDARY.encode() + b"\r\n\r\n"
    ),
}
TRICKLE = {"headers": b"X: y\r\n", "second request": b" ", "unread body": b"a", "body": b"a"}


@pytest.mark.parametrize("kind", SLOW)
def test_slow_requests(tmp_path: Path, record_property: Record, kind: str) -> None:
    """1,100 connections that send a little each second, with a soft limit of 256 open files."""
    count, seconds = 1100, 45
    with ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        service = stack.enter_context(small_service(tmp_path))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        caller = stack.enter_context(other_caller(service))
        peak = asyncio.run(trickle(service, SLOW[kind], TRICKLE.get(kind, b""), count, seconds))
    record_property("tried", count + len(caller.answers))
    record_property("survived", count + len(caller.answers) - len(caller.bad) - peak["late"])
    assert not caller.bad
    assert peak["held"] <= 256 + 10  # half of the room is the most for an address
    assert peak["late"] == 0  # all were closed, and none opened again


async def trickle(
    service: Service, data: bytes, further: bytes, count: int, seconds: float
) -> dict[str, int]:
    """Hold connections; return the most that were open at once, and those left at the end."""
    place = urlsplit(service.address)
    peak = 0

    async def send_slowly() -> bool:
        """Return whether the connection is still open at the end."""
        try:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(data)
            for _ in itertools.repeat(None, int(seconds)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        while await reader.read(10_000):
                            pass
                        return False
                writer.write(further)
        except OSError:
            return False
        else:
            return True
        finally:
            with suppress(UnboundLocalError):
                writer.close()

    async def watch() -> None:
        nonlocal peak
        while True:
            await asyncio.sleep(1)
            peak = max(peak, await asyncio.to_thread(connections_of, service))

    watcher = asyncio.create_task(watch())
    late = sum(await asyncio.gather(*(send_slowly() for _ in range(count))))
    watcher.cancel()
    return {"held": peak, "late": late}


def test_callers_that_do_not_read(tmp_path: Path, record_property: Record) -> None:
    """Connections that ask for the page again and again, and receive nothing."""
    request, count = b"GET /static/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60, 100
    with small_service(tmp_path) as service, other_caller(service) as caller, ExitStack() as stack:
        place = urlsplit(service.address)
        for _ in range(count):
            connection = socket.socket()
            stack.enter_context(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect((place.hostname, place.port))
            connection.settimeout(1)
            with suppress(OSError):
                connection.sendall(request)
        wait_for(lambda: connections_of(service) >= count)  # all are accepted
        wait_for(lambda: connections_of(service) <= 5)
        open_connections = connections_of(service)
    record_property("tried", count)
    record_property("survived", count - max(open_connections - 5, 0))
    assert not caller.bad
    assert open_connections <= 5
