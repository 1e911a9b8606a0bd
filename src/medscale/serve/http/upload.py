"""Reading of a request's body: images and metadata, checked, and kept only in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from medscale.base.errors import MedscaleError
from medscale.serve.http.answers import Model
from medscale.serve.http.problems import Problem
from medscale.serve.http.settings import Settings
from medscale.serve.inputs import mapping

IMAGES, METADATA = "images", "metadata"  # fields of the form
LONGEST_NAME = 255  # bytes, as file systems allow
LONGEST_FIELD = 16 * 1024  # bytes
LARGEST_NUMBER = 1e9  # in metadata


@dataclass(frozen=True)
class Upload:
    """The images of a request as they were sent, and the facts on the patient."""

    images: list[bytes] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


class InMemory(MultiPartParser):
    """A parser without temporary files; the size of the request is limited before."""

    spool_max_size = 2**62


def length(request: Request, settings: Settings) -> int:
    """Return the body's length by the request's headers.

    Raises:
        Problem: 411 without a length, 413 where it is over the limit, 415 for a body that is no
            form.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data" or "charset" in kind.lower():
        raise Problem(415, f"send images as multipart/form-data, in the field {IMAGES!r}", "kind")
    text = request.headers.get("content-length", "")
    if not text.isdecimal():
        raise Problem(411, "say the length of the request (Content-Length)", "length")
    if int(text) > settings.most_bytes:
        detail = f"the request has {int(text):,} bytes; at most {settings.most_bytes:,} are taken"
        raise Problem(413, detail, "bytes")
    return int(text)


async def read(request: Request, settings: Settings, model: Model) -> Upload:
    """Read a request's images and metadata.

    Raises:
        Problem: 400 for a form that cannot be read or has other fields, 408 when it does not
            arrive in time, 422 for metadata that the model does not take.
    """
    form = await _parse(request, settings)
    images, text = [], "{}"
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != IMAGES:
                raise Problem(400, f"files belong in the field {IMAGES!r}", "form")
            _check_name(value.filename or "")
            images.append(await value.read())
            await value.close()
        elif name == METADATA:
            text = value
        else:
            raise Problem(
                400, f"the form has fields {IMAGES!r} and {METADATA!r}; another was sent", "form"
            )
    if not images:
        raise Problem(400, f"no image was sent in the field {IMAGES!r}", "form")
    return Upload(images, _facts(text, model))


async def _parse(request: Request, settings: Settings) -> FormData:
    parser = InMemory(
        request.headers,
        _stream(request),
        max_files=settings.images,
        max_fields=1,
        max_part_size=LONGEST_FIELD,
    )
    try:
        async with asyncio.timeout(settings.body_seconds):
            return await parser.parse()
    except TimeoutError:
        detail = f"the request did not arrive within {settings.body_seconds:g} s"
        raise Problem(408, detail, "slow") from None
    except MultiPartException as error:
        raise Problem(400, f"the form cannot be read: {error.message}", "form") from None
    except (UnicodeError, ValueError, LookupError):
        raise Problem(400, "the form cannot be read", "form") from None
    except ClientDisconnect:
        raise Problem(400, "the request ended early", "form") from None


async def _stream(request: Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        yield chunk


def _check_name(name: str) -> None:
    """Refuse a suspicious file name, although names are never used."""
    odd = len(name.encode("utf-8", "replace")) > LONGEST_NAME or name in (".", "..")
    if odd or any(letter in "/\\" or not letter.isprintable() for letter in name):
        raise Problem(
            400, "a file's name has path separators or control characters, or is too long", "name"
        )


def _facts(text: str, model: Model) -> dict[str, Any]:
    """Return the facts on the patient from JSON, after checking them against the model."""
    try:
        facts = json.loads(text, object_pairs_hook=partial(mapping, METADATA))
    except MedscaleError:  # a name is not repeated in the answer
        raise Problem(400, f"{METADATA!r} has a column with two values", "form") from None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        detail = f'{METADATA!r} must be a JSON object, such as {{"age": 61}}'
        raise Problem(400, detail, "form")
    if not _is_text(facts):
        raise Problem(422, f"{METADATA!r} has characters that are no text (surrogates)", "metadata")
    columns = {column.name: column for column in model.metadata}
    if set(facts) - set(columns):
        columns_text = f"{model.id} takes {', '.join(columns) or 'images alone'}"
        raise Problem(422, f"{METADATA!r} has a column that is unknown: {columns_text}", "metadata")
    facts = {name: value for name, value in facts.items() if value is not None}
    for name, value in facts.items():
        words = columns[name].words
        if words is None and not _is_number(value):
            raise Problem(422, f"{name} must be a number", "metadata")
        if words is not None and str(value) not in words:  # words can be numbers, such as grades
            listed = ", ".join(words)
            detail = f"{name} must be one of {listed}; leave it out if it is none of them"
            raise Problem(422, detail, "metadata")
    return facts


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < LARGEST_NUMBER  # false for NaN


def _is_text(facts: dict[str, Any]) -> bool:
    """Return whether all texts can be written as UTF-8, which a lone surrogate cannot.

    JSON can hold one (RFC 8259, 8.2), and libraries fail on it.
    """
    try:
        json.dumps(facts, ensure_ascii=False).encode()
    except (UnicodeError, RecursionError):
        return False
    return True
