"""The service under many callers: no errors except stated limits, while processes are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from service_process import Service, make_results, picture, resident, running_service
from waiting import until

LIMITS = {429, 503}


@dataclass
class Figures:
    """What callers got in all."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def summary_line(self, duration: float) -> str:
        p50, p95, p99 = np.percentile(self.seconds, (50, 95, 99)) if self.seconds else (np.nan,) * 3
        status_counts = ", ".join(
            f"{count} x {status}" for status, count in sorted(self.statuses.items())
        )
        latency = f"latency p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} s"
        rate = f"{len(self.seconds) / duration:.0f} images/s"
        return f"{status_counts}; {len(self.errors)} broken; {rate}; {latency}"


async def hammer(service: Service, clients: int, seconds: float, images: list[bytes]) -> Figures:
    """Run callers that repeat their request at once, or after Retry-After when refused."""
    figures, end = Figures(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def send_requests(number: int, caller: httpx.AsyncClient) -> None:
        while (start := time.monotonic()) < end:
            files = [("images", ("photo.jpg", images[number % len(images)]))]
            try:
                answer = await caller.post(
                    "/v1/predict", files=files, params={"explain": number % 20 == 0}
                )
            except httpx.HTTPError as error:
                figures.errors.append(repr(error))
                continue
            figures.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                figures.seconds.append(time.monotonic() - start)
            elif answer.status_code in LIMITS:
                await asyncio.sleep(int(answer.headers["retry-after"]))

    async with httpx.AsyncClient(base_url=service.address, timeout=120, limits=limits) as caller:
        await asyncio.gather(*(send_requests(number, caller) for number in range(clients)))
    return figures


async def with_kills(service: Service, clients: int, seconds: float, kills: list[float]) -> Figures:
    """The same while a decoding and a predicting process are killed by turns."""

    async def kill() -> None:
        for number, at in enumerate(kills):
            await asyncio.sleep(at - (kills[number - 1] if number else 0))
            workers = sorted(service.workers(), key=resident)
            os.kill(
                workers[0 if number % 2 == 0 else -1].pid, signal.SIGKILL
            )  # those that predict are the large ones

    images = [picture((640, 480), seed) for seed in range(8)]
    figures, _ = await asyncio.gather(hammer(service, clients, seconds, images), kill())
    return figures


def wait_for(service: Service, processes: int) -> None:
    until(lambda: service.counter("medscale_processes{") >= processes, "processes are replaced")


def check_stop(service: Service, clients: int) -> None:
    """Stop the service: accepted requests are answered, and no others are accepted."""
    large = picture((1600, 1200), kind="PNG")
    with ThreadPoolExecutor(clients) as threads:
        requests = [threads.submit(service.post, *[large] * 12) for _ in range(clients)]
        until(
            lambda: service.counter("medscale_accepted_images") >= 12 * clients, "all are accepted"
        )
        workers = service.workers()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert sum(not request.done() for request in requests) >= clients // 2, (
            "answered too soon to say anything"
        )
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.address}/healthz")
        answers = [request.result() for request in requests]
    assert [answer.status_code for answer in answers] == [200] * clients
    assert all("label" in result for answer in answers for result in answer.json()["results"])
    assert service.process.wait(30) == 0
    _, alive = psutil.wait_procs(workers, 5)
    assert not alive


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return make_results(tmp_path / "results")


def test_killed_processes_cost_nobody_an_answer_and_a_stop_is_in_order(
    results: Path, tmp_path: Path
) -> None:
    with running_service(results, tmp_path, "--rate", "0", "--decoders", "1") as service:
        figures = asyncio.run(with_kills(service, 30, 3, [1, 1.5]))
        assert not figures.errors
        assert set(figures.statuses) == {200}
        assert service.counter("medscale_processes_lost_total") == 2
        wait_for(service, 2)
        check_stop(service, 6)
        assert "Traceback" not in (tmp_path / "serve.log").read_text()


@pytest.mark.load
def test_two_hundred_callers_for_a_minute(results: Path, tmp_path: Path) -> None:
    with running_service(results, tmp_path, "--rate", "0", "--queue", "600") as service:
        idle = service.resident()
        figures = asyncio.run(with_kills(service, 200, 60, [10, 15, 20]))
        wait_for(service, 3)
        after = service.resident()
        print(f"\n200 callers, 60 s, 3 processes killed: {figures.summary_line(60)}")
        print(f"memory of all processes: {idle:.0f} MB before, {after:.0f} MB after")
        assert not figures.errors
        assert set(figures.statuses) <= {200, *LIMITS}
        assert service.counter("medscale_processes_lost_total") == 3
        assert after - idle < 60
        check_stop(service, 20)


@pytest.mark.load
def test_two_hundred_callers_where_there_is_room_for_fifty(results: Path, tmp_path: Path) -> None:
    with running_service(results, tmp_path, "--rate", "100", "--queue", "50") as service:
        figures = asyncio.run(with_kills(service, 200, 20, []))
        limits = "at most 50 images and 100 requests a second"
        print(f"\n200 callers, 20 s, {limits}: {figures.summary_line(20)}")
        assert not figures.errors
        # All come from one address, whose share of the room ends before the room does (503).
        assert set(figures.statuses) == {200, 429}
