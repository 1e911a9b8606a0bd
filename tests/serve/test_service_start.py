"""The start and end of the service: wrong options, key files, and signals."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
from pathlib import Path

import pytest

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.cli import results
from medscale.serve.http import server, start
from medscale.serve.http.settings import Settings
from medscale.serve.http.start import serve


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    options = {"results": [tmp_path], "host": "127.0.0.1", "port": 0, "key_file": None, "hosts": ()}
    with pytest.raises(MedscaleError, match="set a key with --key-file"):
        serve(options | {"host": "0.0.0.0"}, print)
    (tmp_path / "key").write_text("short")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(MedscaleError, match="at least 16 characters"):
        serve(options | {"key_file": tmp_path / "key"}, print)
    for text in ("clé" * 10, "first-line-of-a-key\nsecond-line"):  # headers cannot carry them
        (tmp_path / "key").write_text(text)
        with pytest.raises(MedscaleError, match="one line of ASCII characters"):
            serve(options | {"key_file": tmp_path / "key"}, print)
    with pytest.raises(MedscaleError, match="--workers"):
        serve(options | {"workers": 0}, print)
    with pytest.raises(MedscaleError, match="--proxy: value is not a valid"):
        serve(options | {"proxies": ("*",)}, print)
    for name in ("https://scan.example.org", "scan.example.org:443", "*"):
        with pytest.raises(MedscaleError, match=r"--name: .* is no host name; write it without"):
            serve(options | {"hosts": (name,)}, print)
    with pytest.raises(MedscaleError, match=r"--images: .* give --queue 34 or .* --images 16"):
        serve(options | {"images": 17, "queue": 33}, print)
    with pytest.raises(MedscaleError, match=r"--megabytes: .* give --megabytes 256 or less"):
        serve(options | {"megabytes": 257}, print)
    with pytest.raises(MedscaleError, match="address of this machine with --host"):
        server.listen(Settings(results=(tmp_path,), host="192.0.2.1"))
    listener = server.listen(Settings(results=(tmp_path,), port=0))
    with listener:
        listener.listen()
        with pytest.raises(MedscaleError, match="choose another with --port"):
            serve(options | {"port": listener.getsockname()[1]}, print)
    # A limit of the service on messages that repeat would leave out messages of later tests.
    assert not any(handler.filters for handler in (logging.lastResort, *log.handlers))


def test_options_of_the_command_have_the_defaults_of_the_settings() -> None:
    """The command lists them itself; to import the settings would make its start longer."""
    options = inspect.signature(results.serve).parameters
    shared = {
        name: field.default
        for name, field in Settings.model_fields.items()
        if name in options and not field.is_required()
    }
    assert {"port", "device", "workers", "megapixels", "rate"} <= set(shared)
    assert {name: options[name].default for name in shared} == shared


def test_sigterm_ends_the_service_also_while_models_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    monkeypatch.setattr(server.Service, "start", start)
    before = signal.getsignal(signal.SIGTERM)
    server.run(Settings(results=(tmp_path,), port=0), pytest.fail)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o644, 0o777])
def test_a_key_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    key.chmod(mode)
    options = {"results": [tmp_path], "host": "127.0.0.1", "port": 0, "hosts": ()}
    with pytest.raises(MedscaleError, match="chmod 600"):
        serve(options | {"key_file": key}, print)
    key.chmod(0o400)
    assert start._read_key(key).get_secret_value() == "k" * 32


def test_a_key_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    real = key.stat()
    monkeypatch.setattr(
        start.os, "fstat", lambda _: os.stat_result((*real[:4], 12345, *real[5:10]))
    )
    with pytest.raises(MedscaleError, match="another user"):
        start._read_key(key)
