"""`medscale serve`: options of the command line to settings, and what a person is told."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.log import set_up
from medscale.serve.http.settings import Settings

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(options: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Serve as the options say, until it is stopped.

    Args:
        options: fields of ``Settings``, and ``key_file``.
        tell: is given what a person should read.

    Raises:
        MedscaleError: for an option out of its limits, and as ``server.run``.
    """
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise MedscaleError(f"the service needs {', '.join(absent)}: pip install -e '.[serve]'")
    from medscale.serve.http.server import run

    set_up()
    key_file = options.pop("key_file")
    try:
        settings = Settings(**options, key=_key(key_file) if key_file else None)
    except ValidationError as error:
        first = error.errors()[0]
        raise MedscaleError(f"--{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    tell("loading the models …")
    run(
        settings,
        lambda address: tell(f"{address}   (web page; API at {address}/docs; Ctrl-C stops)"),
    )


def _key(file: Path) -> SecretStr:
    """The key, from a file: on a command line others on the machine would see it."""
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise MedscaleError(f"--key-file {file} cannot be read ({error})") from None
    if len(key) < 16:
        raise MedscaleError(
            f"--key-file {file}: a key has at least 16 characters; openssl rand -hex 32 makes one"
        )
    return SecretStr(key)
