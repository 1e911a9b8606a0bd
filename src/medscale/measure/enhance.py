"""Preprocessing under Dask against the number of workers: seconds of each split, with the workers' start apart."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from distributed import Client

from medscale.base.log import log
from medscale.config.sections import Enhance, Preprocess
from medscale.data.build import Work, chunks, make_chunk, read_index
from medscale.data.limits import SMALLEST_CHUNK
from medscale.data.cluster import client, run_all
from medscale.data.preprocess import preprocess
from medscale.measure.record import cores, in_turns, warm
from medscale.resources.machines import Dask

SPLITS = ("train", "val", "test")
TASKS = 8  # tasks a worker at the largest number of workers, so that the last ones do not leave the others waiting
COLUMNS = [
    "repeat",
    "workers",
    "oversubscribed",
    "split",
    "images",
    "tasks",
    "startup_s",
    "seconds",
    "peak_memory_mb",
]


def measure_enhance(
    index: Path, raw: Path, settings: Preprocess, benchmark: Enhance, scratch: Path
) -> pd.DataFrame:
    """Carry out the study's preprocessing of each split on each number of workers, in turns.

    What is timed is what the rule ``shards`` does: read, check, decode, enhance and write, the same tasks for any
    number of workers. A worker is a process of one thread on one core; where there are more workers than cores several
    share one (``oversubscribed``). Before each timing the split's files are read once. What is written goes to a folder
    in ``scratch`` and is removed.

    Returns:
        A row a repetition with the columns ``COLUMNS``: ``startup_s`` until the workers can begin, ``seconds`` from
        the first task to the last, ``peak_memory_mb`` of the largest worker so far.

    Raises:
        MedscaleError: when the index or an image is missing, or an image has changed since it was indexed.
    """
    table, raw, rows = read_index(index), raw.resolve(), []
    parts = {split: part for split in SPLITS if len(part := table[table["split"] == split])}
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".enhance-", dir=scratch) as folder:
        for repeat in range(benchmark.repeats):
            for workers in in_turns(benchmark.workers, repeat):
                start = perf_counter()
                with ready(workers, raw, settings) as connection:
                    before = perf_counter() - start
                    for split, part in parts.items():
                        size = task_size(len(part), max(benchmark.workers), settings)
                        work = chunks(part, raw, settings, Path(folder, split), size)
                        seconds = timed(connection, work, [raw / path for path in part["path"]])
                        peak = max(connection.run(_peak_mb).values())
                        crowded = workers > len(cores())
                        rows.append(
                            (
                                repeat,
                                workers,
                                crowded,
                                split,
                                len(part),
                                len(work),
                                before,
                                seconds,
                                peak,
                            )
                        )
                        log.info("%s, workers %d: %.2f s", split, workers, seconds)
    return pd.DataFrame(rows, columns=COLUMNS)


def task_size(images: int, workers: int, settings: Preprocess) -> int:
    """Images a task: ``TASKS`` tasks a worker where there are images enough, and no more than a chunk has."""
    return max(1, min(images // (TASKS * workers), settings.chunk or SMALLEST_CHUNK))


@contextmanager
def ready(workers: int, raw: Path, settings: Preprocess) -> Iterator[Client]:
    """A local cluster whose workers have done their imports, one image, and sit on a core each."""
    blank = np.zeros((2 * settings.size, 2 * settings.size, 3), np.uint8)
    with client(Dask(workers=workers), tasks=workers, folder=raw) as connection:
        own = cores()
        for number, worker in enumerate(sorted(connection.scheduler_info(n_workers=-1)["workers"])):
            connection.run(stay_on, own[number % len(own)], workers=[worker])
        connection.run(preprocess, blank, settings)
        yield connection


def stay_on(core: int) -> None:
    """Bind all threads of this process to one core; new threads inherit it."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def timed(connection: Client, work: list[Work], files: list[Path]) -> float:
    """Seconds of all tasks; what they write is removed afterwards."""
    out = Path(work[0][0])
    out.mkdir(parents=True, exist_ok=True)
    warm(files)
    start = perf_counter()
    for _ in run_all(connection, make_chunk, work, ""):
        pass
    seconds = perf_counter() - start
    shutil.rmtree(out)
    return seconds


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
