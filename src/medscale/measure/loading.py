"""Seconds to deliver training-ready batches by each way of loading, against the number of processes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.config.sections import Loading, Preprocess
from medscale.data.build import read_index
from medscale.data.loader import Loader
from medscale.data.random import permutation
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
ALONE = "simple"  # the way of one process, which the others are compared with
WARM_UP = 2  # batches a process before the clock starts
WAIT_S = 300.0  # for processes that start
COLUMNS = ["repeat", "way", "processes", "cores", "oversubscribed"]
COLUMNS += ["images", "startup_s", "seconds", "wait_s", "batches"]
Source = Callable[
    [int, int | None], Iterator[Batch]
]  # of a pass and, for a warm-up, how many batches


@dataclass(frozen=True)
class Job:
    """What is to be loaded: the same images for all ways.

    Attributes:
        paths: raw files, in the order of ids.
        labels: class codes, int64, in that order.
        ids: row ids, int64, in that order.
        shards: folder of the shard set.
        preprocess: what was done once to the shards' images, and is done each time to raw files.
        augment: random changes.
        batch_size: images a batch of one process.
        seed: decides order and changes.
    """

    paths: list[Path]
    labels: np.ndarray = field(repr=False)
    ids: np.ndarray = field(repr=False)
    shards: Path
    preprocess: Preprocess
    augment: Augment
    batch_size: int
    seed: int = 0


class Delivered(NamedTuple):
    """What one process saw: seconds until it could begin, seconds of the pass, and of each wait for a batch."""

    startup_s: float
    seconds: float
    waits: list[float]
    images: int


def measure_loading(
    index: Path,
    raw: Path,
    shards: Path,
    preprocess: Preprocess,
    augment: Augment,
    benchmark: Loading,
) -> pd.DataFrame:
    """Deliver the same training images by each way of loading, on each number of processes, in turns.

    Nothing consumes the batches: the wait for a batch is the time to make it. A process has one thread and one core;
    where there are more processes than cores several share one (``oversubscribed``). The raw files and the shards are
    read once beforehand, processes have their imports done, and each has delivered ``WARM_UP`` batches.

    Returns:
        A row a repetition with the columns ``COLUMNS``: ``startup_s`` from making the loader to the end of the warm-up,
        ``seconds`` of the slowest process, ``wait_s`` the mean seconds a batch of one process.

    Raises:
        MedscaleError: when inputs are missing, or the augmentation has no like in torchvision.
    """
    job = choose(index, raw, shards, preprocess, augment, benchmark)
    warm([*job.paths, *sorted(shards.glob("images-*.npy"))])
    rows = []
    with ExitStack() as stack:
        teams = {
            count: stack.enter_context(Team(count)) for count in sorted({1, *benchmark.processes})
        }
        for repeat in range(benchmark.repeats):
            for processes in in_turns(benchmark.processes, repeat):
                for way in in_turns(
                    [w for w in WAYS if w != ALONE or processes == benchmark.processes[0]], repeat
                ):
                    used = 1 if way == ALONE else processes
                    done = teams[1 if way == "workers" else used].deliver(job, way, used, repeat)
                    waits = [wait for one in done for wait in one.waits]
                    images, slowest = (
                        sum(one.images for one in done),
                        max(one.seconds for one in done),
                    )
                    start = max(one.startup_s for one in done)
                    there = min(used, len(cores()))
                    where = (repeat, way, used, there, used > there)
                    rows.append((*where, images, start, slowest, float(np.mean(waits)), len(waits)))
                    log.info(
                        "%s, processes %d: %.0f images/s", WAYS[way][0], used, images / slowest
                    )
    return pd.DataFrame(rows, columns=COLUMNS)


def choose(
    index: Path,
    raw: Path,
    shards: Path,
    preprocess: Preprocess,
    augment: Augment,
    benchmark: Loading,
) -> Job:
    """The training images that are loaded: as many as asked for or there are, and the same number for each process.

    Raises:
        MedscaleError: when there are fewer training images than processes, or index and shards do not belong together.
    """
    table = read_index(index)
    opened = Shards.open(shards)
    if not np.array_equal(table["id"].to_numpy(), opened.ids):
        raise MedscaleError(f"{shards} was not made from {index}; make it again: snakemake data")
    train = table[table["split"] == "train"]
    step = math.lcm(*benchmark.processes)
    count = min(benchmark.images, len(train)) // step * step
    if not count:
        raise MedscaleError(
            f"{index} has {len(train)} training images, too few for {step} processes to share"
        )
    rows = train.iloc[np.sort(permutation(0, 0, len(train))[:count])]
    codes = rows["label"].cat.codes.to_numpy(np.int64)
    paths = [raw.resolve() / path for path in rows["path"]]
    return Job(
        paths,
        codes,
        rows["id"].to_numpy(),
        shards.resolve(),
        preprocess,
        augment,
        benchmark.batch_size,
    )


class Team:
    """Processes that stay, so that their imports are not timed; they begin each delivery together."""

    def __init__(self, processes: int) -> None:
        context = start_method(__name__)
        self._together = context.Barrier(processes)
        self._pool = ProcessPoolExecutor(processes, context, _join, (self._together,))
        self._processes = processes

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def deliver(self, job: Job, way: str, processes: int, repeat: int) -> list[Delivered]:
        """What each process of the team saw."""
        own = cores()
        places = [[own[rank % len(own)]] for rank in range(self._processes)]
        if way == "workers":
            places = [own[:processes]]
        arguments = [
            (job, way, rank, processes, repeat, place) for rank, place in enumerate(places)
        ]
        started = [self._pool.submit(_deliver, *each) for each in arguments]
        failed = [error for one in started if (error := one.exception()) is not None]
        if failed:  # the others only say that one failed
            raise next(
                (error for error in failed if not isinstance(error, BrokenBarrierError)), failed[0]
            )
        return [one.result() for one in started]


_together: Barrier


def _join(barrier: Barrier) -> None:
    global _together
    _together = barrier
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _deliver(
    job: Job, way: str, rank: int, processes: int, repeat: int, place: list[int]
) -> Delivered:
    """One process's part; runs in a team's process."""
    try:
        os.sched_setaffinity(0, place)
        start = perf_counter()
        batches = source(job, way, rank, processes)
        for _ in batches(repeat, WARM_UP):
            pass
        ready = perf_counter() - start
        _together.wait(WAIT_S)
    except BaseException:
        _together.abort()  # nobody waits for a process that failed
        raise
    waits, images, start = [], 0, perf_counter()
    at = start
    for pixels, _ in batches(repeat, None):
        now = perf_counter()
        waits.append(now - at)
        images += len(pixels)
        at = perf_counter()
    return Delivered(ready, perf_counter() - start, waits, images)


def source(job: Job, way: str, rank: int, processes: int) -> Source:
    """Batches of one process by a way of ``WAYS``."""
    if way == "medscale":
        return _own(job, rank, processes)
    data, count, batch = (
        Photographs(job.paths, job.labels, job.preprocess, job.augment),
        len(job.paths),
        job.batch_size,
    )
    loops = (
        by_hand(data, batch)
        if way == "by_hand"
        else by_dataloader(data, batch, processes * (way == "workers"))
    )

    def batches(repeat: int, limit: int | None) -> Iterator[Batch]:
        torch.manual_seed(job.seed + repeat)
        if way == "by_hand":
            part = np.array_split(np.arange(count), processes)[rank]
            part = part[permutation(job.seed, repeat, len(part))]
        else:
            part = permutation(job.seed, repeat, count)
            part = part[rank::processes] if way == "each" else part
        most = None if limit is None else limit * batch * (processes if way == "workers" else 1)
        return loops(part[:most])

    return batches


def _own(job: Job, rank: int, processes: int) -> Source:
    """The package's loader over the chosen images alone."""
    opened = Shards.open(job.shards)
    chosen = opened.rows["id"].isin(job.ids)
    seen = replace(
        opened, rows=opened.rows.assign(split=opened.rows["split"].where(chosen, "left out"))
    )
    loader = Loader(
        seen,
        "train",
        global_batch=job.batch_size * processes,
        replicas=processes,
        replica=rank,
        seed=job.seed,
        training=True,
        augment=job.augment,
    )

    def batches(repeat: int, limit: int | None) -> Iterator[Batch]:
        for number, step in enumerate(loader.epoch(repeat)):
            if limit is not None and number >= limit:
                return
            yield from ((batch.images, batch.labels) for batch in step.batches)

    return batches
