"""A request's body: images and what is known of the patient, checked, and kept in memory alone."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from medscale.serve.http.answers import Model
from medscale.serve.http.problems import Problem
from medscale.serve.http.settings import Settings

IMAGES, METADATA = "images", "metadata"
LONGEST_NAME = 255  # bytes, as of file systems
LONGEST_FIELD = 16 * 1024  # bytes


@dataclass(frozen=True)
class Upload:
    """Images as they were sent, and what was said of the patient."""

    images: list[bytes] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


class InMemory(MultiPartParser):
    """A parser that writes no temporary files, however large a part is: the request's size is limited before."""

    spool_max_size = 2**62


def length(request: Request, settings: Settings) -> int:
    """The body's length, which must be said beforehand.

    Raises:
        Problem: 411 without a length, 413 where it is over the limit, 415 for anything but a form.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data" or "charset" in kind.lower():
        raise Problem(415, f"send images as multipart/form-data, in the field {IMAGES!r}", "kind")
    said = request.headers.get("content-length", "")
    if not said.isdecimal():
        raise Problem(411, "say the length of the request (Content-Length)", "length")
    if int(said) > settings.most_bytes:
        raise Problem(
            413,
            f"the request has {int(said):,} bytes; at most {settings.most_bytes:,} are taken",
            "bytes",
        )
    return int(said)


async def read(request: Request, settings: Settings, model: Model) -> Upload:
    """Read a request's images and metadata.

    Raises:
        Problem: 400 for a form that is not as it should be, 408 where it does not arrive, 422 for metadata that the
            model does not take.
    """
    parser = InMemory(
        request.headers,
        _stream(request),
        max_files=settings.images,
        max_fields=1,
        max_part_size=LONGEST_FIELD,
    )
    try:
        async with asyncio.timeout(settings.body_seconds):
            form = await parser.parse()
    except TimeoutError:
        raise Problem(
            408, f"the request did not arrive within {settings.body_seconds:g} s", "slow"
        ) from None
    except MultiPartException as error:
        raise Problem(400, f"the form cannot be read: {error.message}", "form") from None
    except (UnicodeError, ValueError, LookupError):
        raise Problem(400, "the form cannot be read", "form") from None
    except ClientDisconnect:
        raise Problem(400, "the request ended early", "form") from None
    images, said = [], "{}"
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != IMAGES:
                raise Problem(400, f"files belong in the field {IMAGES!r}", "form")
            _check_name(value.filename or "")
            images.append(await value.read())
            await value.close()
        elif name == METADATA:
            said = value
        else:
            raise Problem(
                400, f"the form has fields {IMAGES!r} and {METADATA!r}; another was sent", "form"
            )
    if not images:
        raise Problem(400, f"no image was sent in the field {IMAGES!r}", "form")
    return Upload(images, _facts(said, model))


async def _stream(request: Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        yield chunk


def _check_name(name: str) -> None:
    """A file's name is never used; one that tries to be more than a name tells that something is wrong."""
    odd = len(name.encode("utf-8", "replace")) > LONGEST_NAME or name in (".", "..")
    if odd or any(letter in "/\\" or not letter.isprintable() for letter in name):
        raise Problem(
            400, "a file's name has path separators or control characters, or is too long", "name"
        )


def _facts(said: str, model: Model) -> dict[str, Any]:
    """What is said of the patient, as the model takes it."""
    try:
        facts = json.loads(said)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise Problem(400, f"{METADATA!r} is a JSON object", "form")
    columns = {column.name: column for column in model.metadata}
    if set(facts) - set(columns):
        takes = (
            f"{model.id} takes {', '.join(columns)}"
            if columns
            else f"{model.id} takes images alone"
        )
        raise Problem(422, f"{METADATA!r} has something unknown: {takes}", "metadata")
    facts = {name: value for name, value in facts.items() if value is not None}
    for name, value in facts.items():
        if columns[name].words is not None and not isinstance(value, str):
            raise Problem(
                422,
                f"{name} is a word, such as {', '.join((columns[name].words or [])[:5])}",
                "metadata",
            )
        if columns[name].words is None and not _is_number(value):
            raise Problem(422, f"{name} is a number", "metadata")
    return facts


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e9
    )
