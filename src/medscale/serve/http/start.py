"""`medscale serve`: from command-line options to settings, and messages to the user."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.log import set_up
from medscale.serve.http.settings import Settings

REQUIRED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
SHORTEST_KEY = 16  # characters


def serve(options: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Run the service with the options until it is stopped.

    Raises MedscaleError for an option out of its limits, and as ``server.run``.

    Args:
        options: fields of ``Settings``, and ``key_file``.
        tell: is called with each message to the user.
    """
    if absent := [name for name in REQUIRED if find_spec(name) is None]:
        raise MedscaleError(f"the service needs {', '.join(absent)}: pip install -e '.[serve]'")
    from medscale.serve.http.server import run

    set_up()
    key_file = options.pop("key_file")
    try:
        settings = Settings(**options, key=_read_key(key_file) if key_file else None)
    except ValidationError as error:
        first = error.errors()[0]
        raise MedscaleError(f"--{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    tell("loading the models …")
    run(
        settings,
        lambda address: tell(f"{address}   (web page; API at {address}/docs; Ctrl-C stops)"),
    )


def _read_key(file: Path) -> SecretStr:
    """Read the key from a file; other users of the machine could see one on the command line."""
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise MedscaleError(f"--key-file {file} cannot be read ({error})") from None
    if len(key) < SHORTEST_KEY:
        raise MedscaleError(
            f"--key-file {file}: a key has at least {SHORTEST_KEY} characters;"
            " openssl rand -hex 32 makes one"
        )
    return SecretStr(key)
