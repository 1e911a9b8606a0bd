"""A full or read-only disk is one sentence; nothing half-written stays, nor scratch folders."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medscale.base.errors import QUIET_VARIABLE, MedscaleError, storage_fault, tell_user
from medscale.base.files import atomic
from medscale.base.log import set_up
from medscale.base.scratch import LOCK, clear, scratch
from medscale.report import style


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file of this process become larger than 4,096 bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x.npy"),
        OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/x.npy"),
        PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x.npy"),
        OSError("1000 requested and 360 written"),
        OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "/data/" + 300 * "x"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    ],
)
def test_a_command_ends_with_one_sentence(error, capsys):
    with pytest.raises(SystemExit) as end:
        tell_user(fail)(error)
    assert end.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("medscale: error: ")
    assert "start again: finished outputs are kept" in message
    assert len(message.splitlines()) == 1


def test_of_a_copy_the_written_file_is_named() -> None:
    fault = storage_fault(OSError(errno.ENOSPC, "No space left on device", "/a", None, "/b"))
    assert str(fault).startswith("/b: no space left on device")


def test_a_library_that_stumbles_over_a_full_disk_tells_of_the_disk(tmp_path: Path) -> None:
    """Matplotlib's PDF, closed on a full disk, fails with an AttributeError of its own."""
    figure = style.new(2)
    figure.text(0.5, 0.5, "x" * 100)
    with small_files(), pytest.raises(MedscaleError) as caught:
        style.save(figure, tmp_path / "x.pdf")
    assert str(caught.value).startswith(f"{tmp_path}/x.pdf cannot be written")
    assert not list(tmp_path.iterdir())
    for number, is_disk in ((errno.ENOSPC, True), (errno.EACCES, False)):
        error = AttributeError("pos")
        error.__context__ = OSError(number, os.strerror(number))
        assert (storage_fault(error) is not None) == is_disk


def test_an_error_that_no_log_can_hold_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(QUIET_VARIABLE, "1")
    log = set_up(tmp_path / "x.log")
    try:
        log.info("a")
        with small_files():
            for _ in range(200):
                log.info("x" * 100)
            with pytest.raises(SystemExit):
                tell_user(fail)(MedscaleError("no image is left"))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith(f"medscale: {tmp_path}/x.log cannot be written: file too large")
        assert lines[1] == "medscale: error: no image is left"
    finally:
        log.handlers.clear()


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "no", "x")])
def test_another_error_stays_a_bug(error):
    assert storage_fault(error) is None
    with pytest.raises(type(error)):
        tell_user(fail)(error)


def write_array(file: Path) -> None:
    with open(file, "wb") as handle:
        np.save(handle, np.zeros(100_000))


def write_tensors(file: Path) -> None:
    save_file({"x": torch.zeros(100_000)}, file)


@pytest.mark.parametrize("write", [write_array, write_tensors])
def test_a_disk_that_becomes_full_leaves_nothing_half_written(tmp_path, write):
    with (
        small_files(),
        pytest.raises(MedscaleError, match="file cannot be written"),
        atomic(tmp_path / "file") as temporary,
    ):
        write(temporary)
    assert not list(tmp_path.iterdir())


def test_an_array_on_a_full_disk_says_so(tmp_path):
    """NumPy counts the bytes instead of naming the cause."""
    full = r"x\.npy cannot be written: no space left on device; free some"
    with (
        small_files(),
        pytest.raises(MedscaleError, match=full),
        atomic(tmp_path / "x.npy") as temporary,
        open(temporary, "wb") as file,
    ):
        np.save(file, np.zeros(10_000))


def test_the_scratch_folder_of_a_killed_process_is_cleared_and_no_other(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from medscale.base.scratch import scratch\n"
        f"with scratch('medscale-run-', Path({str(tmp_path)!r})) as folder: os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60)
    (remaining_folder,) = tmp_path.iterdir()
    strange = tmp_path / "medscale-run-link"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    strange.symlink_to(elsewhere)
    with scratch("medscale-run-", tmp_path) as first:
        assert not remaining_folder.exists()
        assert first.stat().st_mode & 0o077 == 0
        with scratch("medscale-run-", tmp_path) as second:
            assert first.exists()
            assert second != first
    assert sorted(tmp_path.iterdir()) == [elsewhere, strange]
    assert (elsewhere / LOCK).exists()


def test_a_folder_is_never_cleared_while_its_process_locks_it(tmp_path, monkeypatch):
    def lock(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # another process starts at the same moment
            monkeypatch.undo()
            clear("medscale-run-", tmp_path)
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr("medscale.base.scratch.fcntl.flock", lock)
    with scratch("medscale-run-", tmp_path) as folder:
        assert folder.is_dir()


def test_a_folder_that_another_process_clears_at_the_same_time_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "medscale-run-gone"]))
    with scratch("medscale-run-", tmp_path) as folder:
        assert folder.is_dir()


def test_a_folder_of_temporary_files_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    message = "no temporary folder can be created in .*set TMPDIR"
    with pytest.raises(MedscaleError, match=message), scratch("x", tmp_path / "file"):
        pass


def test_errors_that_name_each_other_end_the_search():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    assert storage_fault(first) is None
    second.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert "no space left on device" in (storage_fault(first) or "")
