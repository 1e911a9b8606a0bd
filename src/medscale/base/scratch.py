"""Private temporary folders; those of killed processes are removed by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medscale.base.errors import MedscaleError

LOCK = "owner.lock"  # locked while its process lives; the system releases it at any end


@contextmanager
def scratch(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that only this user can enter, and remove it afterwards.

    Args:
        prefix: beginning of its name; folders with it whose process is gone are removed first.
        parent: folder to make it in; None for the system's folder of temporary files.

    Raises:
        MedscaleError: when it cannot be made, as the disk is full or read-only.
    """
    try:
        parent = parent or Path(tempfile.gettempdir())
        clear(prefix, parent)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise MedscaleError(
            f"no temporary folder can be made in {parent or 'TMPDIR'} "
            f"({error.strerror or error}); free some space there, or set TMPDIR to another folder"
        ) from None
    try:
        with open(folder / LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear(prefix: str, parent: Path) -> None:
    """Remove this user's folders of a prefix whose process was killed."""
    for folder in parent.glob(f"{prefix}*"):
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # a folder that is being made has no lock yet
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
