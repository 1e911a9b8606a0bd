"""The GPUs of this machine, and their lease: a run takes cards that are free, and waits while too few are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from medscale.base.errors import MedscaleError
from medscale.base.log import log

FOLDER = Path(
    "/tmp/medscale-cards"
)  # one for all users of a machine, and seen from inside containers
EACH_S = 0.5
FOR_ALL = 0o666


def found() -> list[str]:
    """UUIDs of this machine's GPUs in PCI order, asked through NVML; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def visible() -> list[str]:
    """The same, or those of them that CUDA_VISIBLE_DEVICES names: by number in PCI order, or by (MIG) UUID.

    SLURM sets it to a job's own cards; where it also hides the others, NVML lists those alone.
    """
    cards, named = found(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None or not cards:
        return cards
    chosen = []
    for name in filter(None, (part.strip() for part in named.split(","))):
        if name.startswith(("GPU-", "MIG-")):
            chosen.append(name)
        elif name.isdigit() and int(name) < len(cards):
            chosen.append(cards[int(name)])
        else:  # as CUDA does: what comes after an invalid entry is not seen
            break
    return chosen


@contextmanager
def reserve(run: str, count: int) -> Iterator[None]:
    """Hold ``count`` free GPUs of this machine for this process and its children.

    They see these GPUs only, and run on the CPU cores that go with them.

    Args:
        run: name for messages.
        count: number of GPUs.

    Raises:
        MedscaleError: when this machine has too few GPUs.
    """
    pool = visible()
    with lease(run, count, pool) as leased:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(leased)
        os.sched_setaffinity(0, cores(leased, pool, sorted(os.sched_getaffinity(0))))
        yield


@contextmanager
def lease(run: str, count: int, pool: Sequence[str], folder: Path = FOLDER) -> Iterator[list[str]]:
    """Hold ``count`` cards of ``pool`` that no other run on this machine holds; waits in turn for them.

    Each card is a lock on a file, which the system lets go of when its process ends, however that comes. Whoever waits
    stands in a queue (a lock too), so that a run on four cards is not passed by for ever by runs on one.

    Args:
        run: name for messages.
        count: number of cards.
        pool: names of the cards that may be taken.
        folder: where the locks lie.

    Raises:
        MedscaleError: when there are fewer cards than that at all.
    """
    if len(pool) < count:
        raise too_few(run, count, len(pool))
    folder.mkdir(exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o777)
    with ExitStack() as held:
        with _turn(run, folder):
            mine = _take(held, count, pool, folder)
            if not mine:
                log.info(
                    "%s waits for %d of this machine's %d GPUs: other runs have them",
                    run,
                    count,
                    len(pool),
                )
            while not mine:
                time.sleep(EACH_S)
                mine = _take(held, count, pool, folder)
        yield mine


@contextmanager
def _turn(run: str, folder: Path) -> Iterator[None]:
    """Stand in the queue; whoever is first in it waits for cards alone."""
    queue = FileLock(folder / "queue.lock", mode=FOR_ALL)
    try:
        queue.acquire(timeout=0)
    except Timeout:
        log.info("%s waits for GPUs behind another run", run)
        queue.acquire(poll_interval=EACH_S)
    try:
        yield
    finally:
        queue.release()


def _take(held: ExitStack, count: int, pool: Sequence[str], folder: Path) -> list[str]:
    """Lock the first ``count`` free cards and return them; none, and no lock, where fewer are free."""
    with ExitStack() as taken:
        mine: list[str] = []
        for card in pool:
            lock = FileLock(folder / f"{card.replace('/', '_')}.lock", mode=FOR_ALL)
            try:
                taken.enter_context(lock.acquire(timeout=0))
            except Timeout:
                continue
            mine.append(card)
            if len(mine) == count:
                held.enter_context(taken.pop_all())
                return mine
    return []


def cores(mine: Sequence[str], pool: Sequence[str], all_cores: Sequence[int]) -> list[int]:
    """The cores that go with leased cards: as large a share of ``all_cores`` as the cards are of the pool."""
    share = len(all_cores) // len(pool)
    if share == 0 or len(mine) == len(pool):
        return list(all_cores)
    return [core for card in mine for core in all_cores[pool.index(card) * share :][:share]]


def too_few(run: str, needed: int, there: int) -> MedscaleError:
    """What to say where a machine has not the GPUs that a run asks for."""
    return MedscaleError(
        f"{run} needs {needed} GPUs on this machine, {there} found; ask for fewer devices, "
        "or use --profile slurm, or --profile demo, where CPU processes stand in and everything says so"
    )
