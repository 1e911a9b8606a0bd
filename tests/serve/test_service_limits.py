"""Limits, keys and faults of the service, with stubs instead of processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

import hostile
from medscale.serve.http.admission import CALLERS, Admission
from medscale.serve.http.app import create_app
from medscale.serve.http.pool import Lost
from medscale.serve.http.problems import Problem
from medscale.serve.http.service import Service
from medscale.serve.http.settings import Settings
from medscale.serve.http.share import Refusal, Room, caller_of
from stub_service import stub_service

FORM = f"multipart/form-data; boundary={hostile.BOUNDARY}"


def client(service: Service, address: str = "127.0.0.1", **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(service), client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


async def wait_for_images(service: Service, count: int) -> None:
    async with asyncio.timeout(5):
        while service.admission.images < count:
            await asyncio.sleep(0.01)


def upload(data: bytes = b"x") -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("photo.jpg", data))]


def test_an_upload_never_goes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", lambda _: pytest.fail("a temporary file"))

    async def main() -> None:
        service = stub_service()
        async with client(service) as caller:
            assert (
                await caller.post("/v1/predict", files=upload(bytes(5_000_000)))
            ).status_code == 200
        assert len(service.decoders.requests[0][1].data) == 5_000_000  # type: ignore[attr-defined]
        assert service.admission.images == service.admission.bytes == 0

    asyncio.run(main())


def test_a_caller_has_a_rate_and_others_have_theirs() -> None:
    clock = [0.0]
    admission = Admission(Settings(results=(Path(),), rate=2, burst=3), now=lambda: clock[0])
    for _ in range(3):
        admission.count("a")
    with pytest.raises(Problem) as refused:
        admission.count("a")
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    admission.count("b")
    clock[0] += 0.5
    admission.count("a")
    with pytest.raises(Problem):
        admission.count("a")
    clock[0] += 100
    for _ in range(3):
        admission.count("a")
    with pytest.raises(Problem):
        admission.count("a")
    for number in range(CALLERS + 10):
        admission.count(f"caller {number}")
    assert len(admission._callers) == CALLERS


def test_a_refused_caller_waits_until_a_whole_request_is_its_own() -> None:
    clock = [0.0]
    admission = Admission(Settings(results=(Path(),), rate=0.1, burst=1), now=lambda: clock[0])
    admission.count("a")
    for seconds, wait in ((0, 10), (7, 3)):
        clock[0] = seconds
        with pytest.raises(Problem) as refused:
            admission.count("a")
        assert refused.value.retry_after == wait
    clock[0] = 10
    admission.count("a")


def test_when_it_is_full_others_are_sent_away_and_accepted_ones_answered() -> None:
    async def main() -> None:
        service = stub_service(queue=6)
        service.predictors.free.clear()  # type: ignore[attr-defined]
        async with client(service) as caller, client(service, "192.0.2.1") as second_caller:
            requests = [
                asyncio.create_task(caller.post("/v1/predict", files=upload())) for _ in range(3)
            ]
            await wait_for_images(service, 3)
            share = await caller.post("/v1/predict", files=upload())
            assert (share.status_code, share.headers["retry-after"]) == (429, "2")
            requests.append(asyncio.create_task(second_caller.post("/v1/predict", files=upload())))
            await wait_for_images(service, 4)
            assert (await second_caller.post("/v1/predict", files=upload() * 2)).status_code == 429
            async with client(service, "192.0.2.2") as third:
                full = await third.post("/v1/predict", files=upload() * 3)
            assert (full.status_code, full.headers["retry-after"]) == (503, "2")
            service.predictors.free.set()  # type: ignore[attr-defined]
            assert {(await upload).status_code for upload in requests} == {200}
            assert (await caller.post("/v1/predict", files=upload() * 3)).status_code == 200
            assert (await caller.post("/v1/predict", files=upload() * 4)).status_code == 429
            assert service.admission.images == service.admission.bytes == 0

    asyncio.run(main())


def test_requests_that_wait_fill_a_limited_memory() -> None:
    async def main() -> None:
        service = stub_service(pending_megabytes=1)
        async with client(service) as caller:
            for size, status in ((1_000_001, 503), (600_000, 429), (400_000, 200)):
                answer = await caller.post("/v1/predict", files=upload(bytes(size)))
                assert answer.status_code == status

    asyncio.run(main())


def test_a_refused_rate_has_the_time_to_retry() -> None:
    async def main() -> None:
        async with client(stub_service(rate=0.5, burst=1)) as caller:
            assert (await caller.post("/v1/predict", files=upload())).status_code == 200
            repeated_request = await caller.post("/v1/predict", files=upload())
            assert (repeated_request.status_code, repeated_request.headers["retry-after"]) == (
                429,
                "2",
            )

    asyncio.run(main())


def test_a_key_is_required_if_there_is_one() -> None:
    async def main() -> None:
        key = "0123456789abcdef"
        service = stub_service(key=SecretStr(key), host="0.0.0.0")
        async with client(service) as caller:
            for path in ("/v1/models", "/metrics"):
                refused = await caller.get(path)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
                assert (await caller.get(path, headers={"X-API-Key": key + "0"})).status_code == 401
                assert (await caller.get(path, headers={"X-API-Key": key})).status_code == 200
                assert (
                    await caller.get(path, headers={"Authorization": f"bearer {key}"})
                ).status_code == 200
            assert (await caller.post("/v1/predict", files=upload())).status_code == 401
            for path in ("/", "/healthz", "/readyz"):
                assert (await caller.get(path)).status_code == 200
            assert key not in str(service.settings)

    asyncio.run(main())


def test_a_request_that_does_not_arrive_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield hostile.part(b"a.jpg")
        await asyncio.sleep(60)

    async def main() -> None:
        service = stub_service(body_seconds=0.05)
        headers = {"Content-Type": FORM, "Content-Length": "5000"}
        headers["Expect"] = "100-continue"  # else the rest would be waited for, to be thrown away
        async with client(service) as caller:
            answer = await caller.post("/v1/predict", content=endless(), headers=headers)
        assert answer.status_code == 408
        assert service.admission.images == 0

    asyncio.run(main())


def test_faults_are_reported_without_internal_details() -> None:
    async def main() -> None:
        service = stub_service()
        service.predictors.result = Lost()  # type: ignore[attr-defined]
        transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as caller:
            failed_request = await caller.post("/v1/predict", files=upload())
            assert (failed_request.status_code, failed_request.headers["retry-after"]) == (
                503,
                "10",
            )
            service.predictors.result = ValueError("inside")  # type: ignore[attr-defined]
            fault = await caller.post("/v1/predict", files=upload())
            assert fault.status_code == 500
            assert "inside" not in fault.text
            service.predictors.alive = 0
            assert (await caller.get("/readyz")).status_code == 503
            assert (await caller.get("/healthz")).status_code == 200
            metrics = (await caller.get("/metrics")).text
            assert 'medscale_requests_total{path="/v1/predict",status="503"} 1.0' in metrics

    asyncio.run(main())


def test_a_word_that_is_a_number_may_be_sent_as_a_number() -> None:
    async def main() -> None:
        async with client(stub_service()) as caller:
            for grade, status in ((2, 200), ("2", 200), (3, 422), (2.5, 422), (True, 422)):
                data = {"metadata": json.dumps({"grade": grade})}
                answer = await caller.post("/v1/predict", files=upload(), data=data)
                assert answer.status_code == status, grade

    asyncio.run(main())


def test_a_lone_surrogate_and_a_giant_number_are_refused_in_words() -> None:
    async def main() -> None:
        async with client(stub_service()) as caller:
            for metadata in (
                r'{"grade": "\ud800"}',
                r'{"\udfff": 1}',
                r'{"grade": {"a": ["\ud800"]}}',
                '{"age": 1' + "0" * 400 + "}",
                '{"age": 1' + "0" * 5000 + "}",
                '{"age": NaN}',
                '{"age": 1e999}',
                '{"grade": 1, "grade": 2}',
            ):
                answer = await caller.post(
                    "/v1/predict", files=upload(), data={"metadata": metadata.encode()}
                )
                assert answer.status_code in (400, 422), metadata
                assert len(answer.json()["detail"].split()) > 3

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "https://localhost"}, 200),  # a proxy has the certificate
        ({"Origin": "https://scan.example"}, 200),  # --name
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "http://localhost@attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str], status: int) -> None:
    async def main() -> None:
        async with client(stub_service(hosts=("scan.example",))) as caller:
            answer = await caller.post("/v1/predict", files=upload(), headers=headers)
            assert answer.status_code == status

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unknown", "unknown"),
    ],
)
def test_a_network_of_ipv6_is_one_caller(host: str, caller: str) -> None:
    assert caller_of(host) == caller


def test_no_caller_takes_the_room_of_others() -> None:
    room = Room(60)
    callers = [f"caller {number}" for number in range(3)]
    for _ in range(60):
        for caller in callers:
            room.take(caller, 1)
    assert room.in_use <= 45 + 1  # each of three holds as much as is free
    assert room.take("a late one", 1) is None
    for caller in callers:
        while room._by_caller[caller]:
            room.give_back(caller, 1)
    room.give_back("a late one", 1)
    assert room.in_use == 0
    assert not room._by_caller
    assert [room.take(None, 1) for _ in range(61)].count(Refusal.FULL) == 1
