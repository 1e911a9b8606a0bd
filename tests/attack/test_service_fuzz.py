"""Three thousand odd requests: each is answered or closed, none breaks the service."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import hostile
from service_process import CLASSES, Service, make_results, picture, running_service

pytestmark = pytest.mark.attack
REQUESTS = 3000
CALLERS = 12  # at a time
ANSWER_S = 60
LARGEST_MB = 6000  # of the service with its processes
BUSY, CLOSED = "503", "closed"
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH", "\x00", "G" * 5000]
PATHS = [
    "/v1/predict", "/v1/models", "/", "/docs", "/healthz", "/metrics", "/../../etc/passwd", "//",
    "/%2e%2e/%00", "/v1/predict?model=%ff", "/v1/predict?model=none", "/" + "a" * 9000, "*", "é",
    "/v1/predict?explain=perhaps", "/v1/predict?model=" + "a/" * 500, "http://other/v1/models",
]  # fmt: skip
HEADERS = [
    "Content-Length: -1", "Content-Length: 99999999999999",
    "Content-Length: 1\r\nContent-Length: 2", "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip", "Expect: 100-continue",
    "Connection: upgrade\r\nUpgrade: websocket", "Origin: http://elsewhere", "Host: elsewhere",
    "Content-Type: multipart/form-data", "Content-Type: multipart/form-data; boundary=",
    "Content-Type: \xff", "X-API-Key: \xff\xfe", "X-Forwarded-For: " + "1," * 2000, ": no name",
    "Cookie: " + "a=b;" * 2000, "Accept-Encoding: *;q=x", "Range: bytes=9-1", "no colon",
]  # fmt: skip
METADATA = [
    "{", "[]", "null", "1", "[" * 5000, '{"age":' * 3000, '{"age": NaN}', '{"age": 1e400}',
    '{"age": ' + "9" * 5000 + "}", '{"age": "61"}', '{"sex": "\\ud800"}', '{"\\ud800": 1}',
    '{"sex": []}', '{"sex": "' + "a" * 9000 + '"}', '{"sex": "\\u0000"}', '{"age": true}', "\xff",
]  # fmt: skip


def requests() -> list[tuple[bytes, bool]]:
    """Return requests, the same in each run, and whether the sender ends after each."""
    chance = random.Random(18)
    images = [*hostile.damaged().values(), *hostile.random_files(300)]
    images += [picture((60, 40), seed) for seed in range(20)]
    forms = [
        *hostile.FORMS.values(),
        *(hostile.part(name) + hostile.END for name in hostile.NAMES.values()),
    ]
    valid_part = hostile.part(b"a.png", picture((60, 40)))
    odd_requests = [(with_image(data), False) for data in hostile.bombs().values()]
    for number in range(REQUESTS - len(odd_requests)):
        kind = number % 5
        if kind == 0:
            odd_requests.append((odd_line(chance), True))
        elif kind == 1:
            odd_requests.append((form(chance.choice(forms)), False))
        elif kind == 2:
            text = hostile.part(b"", chance.choice(METADATA).encode("latin-1"), b"metadata")
            text = text.replace(b'; filename=""', b"")
            model = chance.choice(["made/ddp_2cpu", ""])
            odd_requests.append((form(valid_part + text + hostile.END, model), False))
        elif kind == 3:
            odd_requests.append((with_image(chance.choice(images)), False))
        else:  # a right request with bytes changed, or cut short
            whole = bytearray(form(valid_part + hostile.END))
            for _ in range(chance.randint(1, 8)):
                whole[chance.randrange(min(len(whole), 400))] = chance.randrange(256)
            end = chance.choice([len(whole), chance.randrange(len(whole))])
            odd_requests.append((bytes(whole[:end]), True))
    chance.shuffle(odd_requests)
    return odd_requests


def odd_line(chance: random.Random) -> bytes:
    """Return a request of odd method, path and headers."""
    headers = [chance.choice(HEADERS) for _ in range(chance.randint(0, 4))]
    host = chance.choice(["Host: 127.0.0.1", "Host: 127.0.0.1", "Host:", "X: y"])
    version = chance.choice(["HTTP/1.1", "HTTP/1.1", "HTTP/9", ""])
    first = f"{chance.choice(METHODS)} {chance.choice(PATHS)} {version}"
    return "\r\n".join([first, host, *headers, "", chance.choice(["", "body"])]).encode("latin-1")


def with_image(data: bytes) -> bytes:
    """Return a request with one file."""
    return form(hostile.part(b"a.png", data) + hostile.END)


def form(body: bytes, model: str = "") -> bytes:
    """A request for predictions of a form."""
    query = f"?model={model}" if model else ""
    head = [
        f"POST /v1/predict{query} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: multipart/form-data; boundary={hostile.BOUNDARY}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


async def send(host: str, port: int, request: bytes, *, end: bool) -> str:
    """Return the status of the answer, or how the connection ended.

    ``end``: whether the sender closes its direction after the request.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"no connection: {error}"
    try:
        writer.write(request)
        await writer.drain()
        if end:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.readline(), ANSWER_S)
        return answer.split(b" ")[1].decode() if b" " in answer else CLOSED
    except TimeoutError:
        return "no answer"
    except OSError:
        return CLOSED
    finally:
        writer.close()


async def send_all(service: Service, odd_requests: list[tuple[bytes, bool]]) -> list[str]:
    """Return the answer of each request."""
    place = urlsplit(service.address)
    free = asyncio.Semaphore(CALLERS)

    async def send_request(request: bytes, end: bool) -> str:
        async with free:
            return await send(str(place.hostname), int(place.port or 0), request, end=end)

    return list(await asyncio.gather(*(send_request(*request) for request in odd_requests)))


def test_odd_requests(tmp_path: Path, record_property) -> None:
    odd_requests = requests()
    assert len(odd_requests) == REQUESTS
    results = make_results(tmp_path / "results")
    with running_service(results, tmp_path, "--rate", "0", "--megapixels", "20") as service:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            assert client.get(f"{service.address}/readyz").status_code == 200
        answers = asyncio.run(send_all(service, odd_requests))
        faults = [
            (number, answer, request[:300])
            for number, (answer, (request, _)) in enumerate(zip(answers, odd_requests, strict=True))
            if answer not in (CLOSED, BUSY) and not "100" <= answer < "500"
        ]
        record_property("tried", len(odd_requests))
        record_property("survived", len(odd_requests) - len(faults))
        print(Counter(answers))
        assert not faults, faults[:5]
        assert service.process.poll() is None
        response = service.post(picture(), model="made/ddp_2cpu", metadata=json.dumps({"age": 61}))
        assert set(response.json()["results"][0]["probabilities"]) == set(CLASSES)
        assert service.resident() < LARGEST_MB
    assert "Traceback" not in (tmp_path / "serve.log").read_text(encoding="utf-8")
