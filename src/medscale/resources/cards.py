"""The GPUs of this machine and their lease: a run takes free cards, or waits for them."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from medscale.base.environment import kept_environment
from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.base.text import amount

# All users of a machine share this folder; containers mount /tmp and see it, too. As in /tmp, only
# the owner of a file can remove it (sticky bit), since a lock on a replaced file would protect
# nothing. A link, or a folder or file with other rights, is refused (_prepare).
FOLDER = Path("/tmp/medscale-cards")  # noqa: S108
FOLDER_MODE = 0o1777
QUEUE = "queue"
POLL_S = 0.5
FILE_MODE = 0o666  # every user can lock the files


def installed_cards() -> list[str]:
    """Return the UUIDs of this machine's GPUs in PCI order, from NVML; empty without a driver.

    A GPU that is divided (MIG) is represented by its parts.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        parts = [part for handle in handles for part in _parts(handle)]
        return [str(pynvml.nvmlDeviceGetUUID(part)) for part in parts]
    finally:
        pynvml.nvmlShutdown()


def _parts(handle: Any) -> list[Any]:
    """Return NVML's handles of a GPU's parts if it is divided (MIG), otherwise the GPU's own."""
    import pynvml

    try:
        if pynvml.nvmlDeviceGetMigMode(handle)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            return [handle]
    except pynvml.NVMLError:  # a GPU that cannot be divided
        return [handle]
    parts = []
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(pynvml.NVMLError):  # this part does not exist
            parts.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
    return parts


def visible() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names: by number in PCI order, or by (MIG) UUID.

    A UUID may be shortened. Without that variable all GPUs are visible. As in CUDA, none is where
    one is named twice. SLURM sets the variable to a job's cards. If SLURM also hides the other
    cards, NVML lists only those of the job.
    """
    cards, visible_variable = installed_cards(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible_variable is None or not cards:
        return cards
    names = []
    for name in filter(None, (part.strip() for part in visible_variable.split(","))):
        if name.startswith(("GPU-", "MIG-")):
            matches = [card for card in cards if card.startswith(name)]
            names.append(matches[0] if len(matches) == 1 else name)
        elif name.isdigit() and int(name) < len(cards):
            names.append(cards[int(name)])
        else:  # as in CUDA, an invalid entry hides all entries after it
            break
    return names if len(set(names)) == len(names) else []


@contextmanager
def reserve(run: str, count: int) -> Iterator[None]:
    """Reserve ``count`` free GPUs of this machine for this process and its children.

    The processes see only these GPUs, and run on the same share of the CPU cores.

    Args:
        run: name of the run, for messages.
        count: number of GPUs.

    Raises:
        MedscaleError: when this machine has too few GPUs.
    """
    pool = visible()
    with lease(run, count, pool) as card_names:
        before = os.sched_getaffinity(0)
        with kept_environment(CUDA_VISIBLE_DEVICES=",".join(card_names)):
            os.sched_setaffinity(0, cores(card_names, pool, sorted(before)))
            try:
                yield
            finally:
                os.sched_setaffinity(0, before)


@contextmanager
def lease(run: str, count: int, pool: Sequence[str], folder: Path = FOLDER) -> Iterator[list[str]]:
    """Lease ``count`` cards of ``pool`` that no other run on this machine has, or wait for them.

    Each card is a lock on a file. The system releases it when its process ends for any reason.
    Waiting runs queue (the queue is a lock, too), so that runs on one card cannot overtake a run on
    four cards for ever.

    Args:
        run: name of the run, for messages.
        count: number of cards.
        pool: names of the cards that may be taken.
        folder: folder of the locks.

    Yields:
        The names of the leased cards.

    Raises:
        MedscaleError: when the pool has fewer cards, or the folder or a file in it is not safe.
    """
    if len(pool) < count:
        raise too_few_cards(run, count, len(pool))
    _prepare(folder, [_lock_file(folder, name) for name in (QUEUE, *pool)])
    with ExitStack() as locks:
        with _turn(run, folder):
            names = _take(locks, count, pool, folder)
            if not names:
                log.info(
                    "%s waits for %d of this machine's %d GPUs: other runs have them",
                    run,
                    count,
                    len(pool),
                )
            while not names:
                time.sleep(POLL_S)
                names = _take(locks, count, pool, folder)
        yield names


def _prepare(folder: Path, files: Sequence[Path]) -> None:
    """Create the folder of the locks and their files, or check that those present are safe.

    The files are created here, since opening them for the lock would follow a link.

    Raises:
        MedscaleError: when the folder is a link, when any user can remove its files, or when a file
            is not a regular file that every user can lock.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            folder.chmod(FOLDER_MODE)  # mkdir applies the umask
            status = folder.lstat()
        mode = status.st_mode
        others_write = mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISDIR(mode) or (others_write and not mode & stat.S_ISVTX):
            raise _unsafe(folder)
        for file in files:
            with suppress(FileExistsError):
                flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW
                descriptor = os.open(file, flags, FILE_MODE)
                os.fchmod(descriptor, FILE_MODE)
                os.close(descriptor)
            if not stat.S_ISREG(file.lstat().st_mode) or not os.access(file, os.W_OK):
                raise _unsafe(file)
    except OSError as error:
        raise MedscaleError(
            f"{error.filename or folder}: GPUs cannot be leased ({error.strerror}); ask the owner "
            f"or an administrator to remove {folder}"
        ) from None


def _unsafe(path: Path) -> MedscaleError:
    return MedscaleError(
        f"{path} was not created by medscale, so that GPUs could be leased twice or never; ask its "
        "owner or an administrator to remove it while no training runs"
    )


def _lock_file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '_')}.lock"


@contextmanager
def _turn(run: str, folder: Path) -> Iterator[None]:
    """Queue behind other waiting runs; the first in the queue waits for cards."""
    queue = _lock(_lock_file(folder, QUEUE))
    if queue is None:
        log.info("%s waits for GPUs behind another run", run)
    while queue is None:
        time.sleep(POLL_S)
        queue = _lock(_lock_file(folder, QUEUE))
    try:
        yield
    finally:
        os.close(queue)


def _lock(file: Path) -> int | None:
    """Lock a file; return its descriptor, whose closing releases it, or None if it is locked.

    The package filelock opens files with O_CREAT, which Linux refuses for another user's file in a
    sticky folder (fs.protected_regular).
    """
    descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _take(locks: ExitStack, count: int, pool: Sequence[str], folder: Path) -> list[str]:
    """Lock and return the first ``count`` free cards; lock none if fewer are free."""
    with ExitStack() as attempt:
        names: list[str] = []
        for card in pool:
            lock = _lock(_lock_file(folder, card))
            if lock is None:
                continue
            attempt.callback(os.close, lock)
            names.append(card)
            if len(names) == count:
                locks.enter_context(attempt.pop_all())
                return names
    return []


def cores(names: Sequence[str], pool: Sequence[str], all_cores: Sequence[int]) -> list[int]:
    """Return the CPU cores for leased cards, in proportion to their share of the pool."""
    share = len(all_cores) // len(pool)
    if share == 0 or len(names) == len(pool):
        return list(all_cores)
    return [core for card in names for core in all_cores[pool.index(card) * share :][:share]]


def too_few_cards(run: str, count: int, present: int) -> MedscaleError:
    """Return the error for a machine with fewer GPUs than a run needs."""
    continued = (
        f" An interrupted training goes on with them by --config 'node={{gpus: {present}}}'."
        if present
        else ""
    )
    return MedscaleError(
        f"{run} needs {amount(count, 'GPU')}, but this machine has {present}; choose a run with "
        "fewer devices, or use --profile slurm, or --profile demo, in which CPU processes stand in "
        f"for GPUs and all results are marked so.{continued}"
    )
