"""`medscale serve`: from command-line options to settings, and messages to the user."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.extras import require
from medscale.base.log import set_up
from medscale.serve.http.settings import Settings

REQUIRED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
SHORTEST_KEY, LONGEST_KEY = 16, 1024  # characters
OPTIONS = {"hosts": "name", "proxies": "proxy"}  # settings whose options have other names
ROOT = 0  # user id; root's files are trusted


def serve(options: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Run the service with the options until it is stopped.

    Raises MedscaleError for an option out of its limits, and as ``server.run``.

    Args:
        options: fields of ``Settings``, and ``key_file``.
        tell: is called with each message to the user.
    """
    require("web services", "serve", *REQUIRED)
    from medscale.serve.http.server import run

    set_up()
    key_file = options.pop("key_file")
    try:
        settings = Settings(**options, key=_read_key(key_file) if key_file else None)
    except ValidationError as error:
        first = error.errors()[0]
        setting = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ")
        raise MedscaleError(f"--{OPTIONS.get(setting, setting)}: {reason}") from None
    _refuse_unanswerable(settings)
    tell("loading the models …")
    run(
        settings,
        lambda address: tell(f"{address}   (web page; API at {address}/docs; Ctrl-C stops)"),
    )


def _refuse_unanswerable(settings: Settings) -> None:
    """Raise MedscaleError when a request within its limits exceeds what a caller may hold.

    It would be refused each time, with the advice to send it again.
    """
    if settings.images > settings.queue // 2:
        raise MedscaleError(
            f"--images: a request may have {settings.images} images, but a caller holds at most "
            f"half of --queue {settings.queue}; give --queue {2 * settings.images} or more, or "
            f"--images {settings.queue // 2} or fewer"
        )
    if settings.megabytes > settings.pending_megabytes / 2:
        raise MedscaleError(
            f"--megabytes: a request may have {settings.megabytes:g} MB, but a caller holds at "
            f"most half of {settings.pending_megabytes:g} MB; give --megabytes "
            f"{settings.pending_megabytes / 2:g} or less"
        )


def _read_key(file: Path) -> SecretStr:
    """Read the key from a file; other users of the machine could see one on the command line.

    Raises MedscaleError when others may read or change the file, or the key is short.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            status = os.fstat(stream.fileno())
            key = stream.read(LONGEST_KEY + 1).strip()
    except (OSError, UnicodeError) as error:
        raise MedscaleError(f"--key-file {file} cannot be read ({error})") from None
    if status.st_uid not in (os.getuid(), ROOT):
        raise MedscaleError(f"--key-file {file} belongs to another user; make a file of your own")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MedscaleError(
            f"--key-file {file}: others on this machine may read or change it; chmod 600 {file},"
            " and make a new key if others have accounts here"
        )
    if len(key) > LONGEST_KEY:
        raise MedscaleError(f"--key-file {file}: a key has at most {LONGEST_KEY} characters")
    if not (key.isascii() and key.isprintable()):
        raise MedscaleError(
            f"--key-file {file}: a key is one line of ASCII characters, as headers of HTTP are"
        )
    if len(key) < SHORTEST_KEY:
        raise MedscaleError(
            f"--key-file {file}: a key has at least {SHORTEST_KEY} characters;"
            " (umask 077; openssl rand -hex 32 > FILE) makes one"
        )
    return SecretStr(key)
