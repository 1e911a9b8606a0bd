"""Private temporary folders; the next process removes those of killed processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medscale.base.errors import MedscaleError

LOCK = "owner.lock"  # locked while its process runs; the system releases it if the process ends


@contextmanager
def scratch(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that only this user can enter, and remove it afterwards.

    Args:
        prefix: beginning of the folder's name. Folders with this prefix whose process has ended
            are removed first.
        parent: parent folder; None: the system's folder for temporary files.

    Raises:
        MedscaleError: when the folder cannot be created, since the disk is full or read-only.
    """
    try:
        parent = parent or Path(tempfile.gettempdir())
        clear(prefix, parent)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise MedscaleError(
            f"no temporary folder can be created in {parent or 'TMPDIR'} "
            f"({error.strerror or error}); free some space there, or set TMPDIR to another folder"
        ) from None
    try:
        with open(folder / f".{LOCK}", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Only a locked file has this name: others remove a folder whose lock is free.
            os.rename(lock.name, folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear(prefix: str, parent: Path) -> None:
    """Remove this user's folders with a prefix whose process was killed."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):  # another process removes it at the same time
            status = folder.lstat()
            is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if is_own and _is_orphan(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_orphan(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # another process has just created the folder, and not yet its lock
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
