"""Time to deliver training-ready batches, by way of loading and number of processes."""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from time import perf_counter
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import pandas as pd
import torch

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.config.benchmarks import Loading
from medscale.data.index_file import read_index
from medscale.data.loader import Loader
from medscale.data.random import permutation
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards
from medscale.engine.plan import Augment
from medscale.measure.loaders import Batch, Photographs, by_dataloader, by_hand
from medscale.measure.record import cores, in_turns, start_method, warm

WAYS = {
    "simple": (
        "simple",
        "one process reads each raw file by PIL and changes it by torchvision, in a DataLoader",
    ),
    "workers": ("DataLoader workers", "the same, by the worker processes of one DataLoader"),
    "each": (
        "a DataLoader each",
        "the same, by processes that each have a DataLoader over a share drawn anew",
    ),
    "by_hand": (
        "split by hand",
        "the same, by processes that each loop over a fixed part of the index",
    ),
    "medscale": (
        "medscale",
        "preprocessed once; each process takes its share of each batch from mapped memory",
    ),
}
ALONE = "simple"  # the way that uses a single process; it is the base of comparisons
WARM_UP = 2  # batches of each process before the timing begins
WAIT_S = 300.0  # longest wait for all processes to be ready
COLUMNS = ["repeat", "way", "processes", "cores", "oversubscribed"]
COLUMNS += ["images", "startup_s", "seconds", "wait_s", "batches"]

# Function that yields the batches of a pass: of its number, and of the number of batches of a
# warm-up (None: the whole pass).
Source = Callable[[int, int | None], Iterator[Batch]]


@dataclass(frozen=True)
class Job:
    """The images to load, the same for all ways."""

    paths: list[Path]  # raw files, in the order of ids
    labels: np.ndarray = field(repr=False)  # class codes, int64, in that order
    ids: np.ndarray = field(repr=False)  # row ids, int64, in that order
    shards: Path  # folder of the shard set
    # preprocessing of raw files at each reading; the shards hold its result
    preprocess: Preprocess
    augment: Augment  # random changes
    batch_size: int  # images in a batch of one process
    seed: int = 0  # seed of the order and of the augmentation


class Delivery(NamedTuple):
    """The times of one process."""

    startup_s: float  # seconds from the loader's construction to the end of the warm-up
    seconds: float  # seconds of the pass
    waits: list[float]  # seconds of the wait for each batch
    images: int  # number of delivered images


def measure_loading(
    index: Path,
    raw: Path,
    shards: Path,
    preprocess: Preprocess,
    augment: Augment,
    benchmark: Loading,
) -> pd.DataFrame:
    """Deliver the same training images by each way of loading, on each number of processes.

    The batches are discarded, so that the wait for a batch is the time to produce it. A process has
    one thread and one core; more processes than cores share cores (``oversubscribed``). Before the
    timing, raw files and shards are read once, all processes finish their imports, and each
    delivers ``WARM_UP`` batches.

    Args:
        index: the study's index.parquet.
        raw: folder that its paths are relative to.
        shards: folder of the study's shards.
        preprocess: preprocessing of the study, for the ways that read raw files.
        augment: augmentation of the study.
        benchmark: numbers of images, processes and repetitions, and the batch size.

    Returns:
        One row for each repetition with the columns ``COLUMNS``: ``startup_s`` from the loader's
        construction to the end of the warm-up, ``seconds`` of the slowest process, ``wait_s``, the
        mean wait for a batch.

    Raises:
        MedscaleError: when inputs are missing, or torchvision lacks the study's augmentation.
    """
    job = choose(index, raw, shards, preprocess, augment, benchmark)
    warm([*job.paths, *sorted(shards.glob("images-*.npy"))])
    counts, rows = benchmark.processes, []
    with ExitStack() as stack:
        teams = {count: stack.enter_context(Team(count)) for count in sorted({1, *counts})}
        for repeat in range(benchmark.repeats):
            for processes in in_turns(counts, repeat):
                ways = [way for way in WAYS if way != ALONE or processes == counts[0]]
                for way in in_turns(ways, repeat):
                    process_count = 1 if way == ALONE else processes
                    # The DataLoader of "workers" starts its processes itself.
                    team = teams[1 if way == "workers" else process_count]
                    deliveries = team.deliver(job, way, process_count, repeat)
                    rows.append({"repeat": repeat, "way": way} | _row(deliveries, process_count))
                    rate = rows[-1]["images"] / rows[-1]["seconds"]
                    log.info("%s, processes %d: %.0f images/s", WAYS[way][0], process_count, rate)
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(deliveries: list[Delivery], processes: int) -> dict[str, Any]:
    """Summarize the times of all processes."""
    waits = [wait for process in deliveries for wait in process.waits]
    return {
        "processes": processes,
        "cores": min(processes, len(cores())),
        "oversubscribed": processes > len(cores()),
        "images": sum(process.images for process in deliveries),
        "startup_s": max(process.startup_s for process in deliveries),
        "seconds": max(process.seconds for process in deliveries),
        "wait_s": float(np.mean(waits)),
        "batches": len(waits),
    }


def choose(
    index: Path,
    raw: Path,
    shards: Path,
    preprocess: Preprocess,
    augment: Augment,
    benchmark: Loading,
) -> Job:
    """Choose the training images to load: an equal number for each process, up to the setting.

    Raises:
        MedscaleError: when there are fewer training images than processes, or the shards do not
            belong to the index.
    """
    table = read_index(index)
    shard_set = Shards.open(shards)
    if not np.array_equal(table["id"].to_numpy(), shard_set.ids):
        raise MedscaleError(f"{shards} was not made from {index}; make it again: snakemake data")
    train = table[table["split"] == "train"]
    step = math.lcm(*benchmark.processes)
    count = min(benchmark.images, len(train)) // step * step
    if not count:
        raise MedscaleError(
            f"{index} has {len(train)} training images, too few for {step} processes to share"
        )
    rows = train.iloc[np.sort(permutation(0, 0, len(train))[:count])]
    return Job(
        paths=[raw.resolve() / path for path in rows["path"]],
        labels=rows["label"].cat.codes.to_numpy(np.int64),
        ids=rows["id"].to_numpy(),
        shards=shards.resolve(),
        preprocess=preprocess,
        augment=augment,
        batch_size=benchmark.batch_size,
    )


class Team:
    """Processes that start each delivery at the same time.

    They persist over all deliveries, so that imports are not timed.
    """

    def __init__(self, processes: int) -> None:
        context = start_method(__name__)
        self._pool = ProcessPoolExecutor(processes, context, _set_up, (context.Barrier(processes),))
        self._processes = processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def deliver(self, job: Job, way: str, processes: int, repeat: int) -> list[Delivery]:
        """Deliver a job's images once, and return the times of each process."""
        usable_cores = cores()
        places = [[usable_cores[rank % len(usable_cores)]] for rank in range(self._processes)]
        if way == "workers":
            places = [usable_cores[:processes]]
        futures = [
            self._pool.submit(_deliver, job, way, rank, processes, repeat, place)
            for rank, place in enumerate(places)
        ]
        errors = [error for future in futures if (error := future.exception()) is not None]
        # A process that fails breaks the barrier of the others: its own error is the cause.
        causes = [error for error in errors if not isinstance(error, BrokenBarrierError)]
        if errors:
            raise (causes or errors)[0]
        return [future.result() for future in futures]


_barrier: Barrier  # of all processes of the team, in each of them


def _set_up(barrier: Barrier) -> None:
    """Prepare a process of a team."""
    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _deliver(
    job: Job, way: str, rank: int, processes: int, repeat: int, place: list[int]
) -> Delivery:
    """Deliver the images of one process on the cores ``place``; runs in a process of a team."""
    try:
        os.sched_setaffinity(0, place)
        start = perf_counter()
        batches = source(job, way, rank, processes)
        for _ in batches(repeat, WARM_UP):
            pass
        startup = perf_counter() - start
        _barrier.wait(WAIT_S)
    except BaseException:
        _barrier.abort()  # otherwise the other processes would wait for this one
        raise
    waits, images, start = [], 0, perf_counter()
    before = start
    for pixels, _ in batches(repeat, None):
        waits.append(perf_counter() - before)
        images += len(pixels)
        before = perf_counter()
    return Delivery(startup, perf_counter() - start, waits, images)


def source(job: Job, way: str, rank: int, processes: int) -> Source:
    """Return the source of one process's batches for a way of ``WAYS``."""
    if way == "medscale":
        return _by_medscale(job, rank, processes)
    data = Photographs(job.paths, job.labels, job.preprocess, job.augment)
    workers = processes if way == "workers" else 0
    loop = (
        by_hand(data, job.batch_size)
        if way == "by_hand"
        else by_dataloader(data, job.batch_size, workers)
    )

    def batches(repeat: int, limit: int | None) -> Iterator[Batch]:
        torch.manual_seed(job.seed + repeat)
        positions = _positions(job, way, rank, processes, repeat)
        limit_images = None if limit is None else limit * job.batch_size * (workers or 1)
        return loop(positions[:limit_images])

    return batches


def _positions(job: Job, way: str, rank: int, processes: int, repeat: int) -> np.ndarray:
    """Return the positions in ``job.paths`` that a process reads in a pass, in order."""
    count = len(job.paths)
    if way == "by_hand":
        share = np.array_split(np.arange(count), processes)[rank]
        return share[permutation(job.seed, repeat, len(share))]
    order = permutation(job.seed, repeat, count)
    return order[rank::processes] if way == "each" else order


def _by_medscale(job: Job, rank: int, processes: int) -> Source:
    """Return batches of the package's loader, over the chosen images alone."""
    shard_set = Shards.open(job.shards)
    is_in_job = shard_set.rows["id"].isin(job.ids)
    rows = shard_set.rows.assign(split=shard_set.rows["split"].where(is_in_job, "left out"))
    loader = Loader(
        replace(shard_set, rows=rows),
        "train",
        global_batch=job.batch_size * processes,
        replicas=processes,
        replica=rank,
        seed=job.seed,
        training=True,
        augment=job.augment,
    )

    def batches(repeat: int, limit: int | None) -> Iterator[Batch]:
        for step in islice(loader.epoch(repeat), limit):
            yield from ((batch.images, batch.labels) for batch in step.batches)

    return batches
