"""Time of preprocessing under Dask against the number of workers, without the workers' start."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client

from medscale.base.log import log
from medscale.base.memory import peak_memory_mb
from medscale.config.benchmarks import Enhance
from medscale.data import guard
from medscale.data.build import Work, chunks, make_chunk
from medscale.data.cluster import client, run_all
from medscale.data.index_file import read_index
from medscale.data.limits import SMALLEST_CHUNK
from medscale.data.prepare import read_image
from medscale.data.preprocess import preprocess
from medscale.data.settings import LIMITS, SPLITS, Dask, Preprocess
from medscale.measure.record import cores, in_turns, warm

# Tasks for each worker at the largest number of workers. With fewer tasks, the other workers would
# wait noticeably for the one that has the last task.
TASKS = 8
COLUMNS = ["repeat", "workers", "oversubscribed", "split", "images", "tasks"]
COLUMNS += ["startup_s", "seconds", "peak_memory_mb"]


def measure_enhance(
    index: Path, raw: Path, settings: Preprocess, benchmark: Enhance, scratch: Path
) -> pd.DataFrame:
    """Preprocess each split on each number of workers, in turns.

    The timed tasks are those of the rule ``shards`` (read, check, decode, enhance and write). They
    are the same for any number of workers. A worker is a process of one thread on one core; more
    workers than cores share cores (``oversubscribed``). Each split's files are read once before
    each timing. Outputs go to a folder in ``scratch`` and are removed.

    Args:
        index: the study's index.parquet.
        raw: folder that its paths are relative to.
        settings: settings of the preprocessing.
        benchmark: numbers of workers and of repetitions.
        scratch: folder for the outputs.

    Returns:
        One row for each repetition with the columns ``COLUMNS``: ``startup_s`` until the workers
        are ready, ``seconds`` from the first task to the last, ``peak_memory_mb`` (MiB) of the
        largest worker until then.

    Raises:
        MedscaleError: when the index or an image is missing, or an image has changed since it was
            indexed.
    """
    table, raw, rows = read_index(index), raw.resolve(), []
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".enhance-", dir=scratch) as folder:
        tasks_by_split: dict[str, tuple[list[Work], list[Path]]] = {}
        for split in SPLITS:
            if len(part := table[table["split"] == split]):
                size = task_size(len(part), max(benchmark.workers), settings)
                work = chunks(part, raw, settings, Path(folder, split), size)
                tasks_by_split[split] = work, [raw / path for path in part["path"]]
        for repeat in range(benchmark.repeats):
            for workers in in_turns(benchmark.workers, repeat):
                columns = {"repeat": repeat, "workers": workers}
                columns["oversubscribed"] = workers > len(cores())
                rows += [columns | row for row in _measure(tasks_by_split, workers, raw, settings)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _measure(
    tasks_by_split: dict[str, tuple[list[Work], list[Path]]],
    workers: int,
    raw: Path,
    settings: Preprocess,
) -> Iterator[dict[str, Any]]:
    """Time each split's tasks on a number of workers."""
    start = perf_counter()
    with cluster(workers, raw, settings) as connection:
        startup = perf_counter() - start
        for split, (work, files) in tasks_by_split.items():
            seconds = time_tasks(connection, work, files)
            log.info("%s, workers %d: %.2f s", split, workers, seconds)
            yield {
                "split": split,
                "images": len(files),
                "tasks": len(work),
                "startup_s": startup,
                "seconds": seconds,
                "peak_memory_mb": max(connection.run(_peak_mb).values()),
            }


def task_size(images: int, workers: int, settings: Preprocess) -> int:
    """Return the images of a task: ``TASKS`` tasks per worker, each at most one chunk."""
    return max(1, min(images // (TASKS * workers), settings.chunk or SMALLEST_CHUNK))


@contextmanager
def cluster(workers: int, raw: Path, settings: Preprocess) -> Iterator[Client]:
    """Start a local cluster, pin its workers to cores, and let each preprocess one image.

    A worker and its decoding process share a core, since they never compute at the same time.
    """
    blank = np.zeros((2 * settings.size, 2 * settings.size, 3), np.uint8)
    decoding = LIMITS, read_image
    with client(
        Dask(workers=workers), make_chunk, decoding=decoding, tasks=workers, folder=raw
    ) as connection:
        core_numbers = cores()
        for number, worker in enumerate(sorted(connection.scheduler_info(n_workers=-1)["workers"])):
            core = core_numbers[number % len(core_numbers)]
            connection.run(stay_on, core, workers=[worker])
            connection.run(guard.call, LIMITS, stay_on, core, workers=[worker])
        connection.run(guard.call, LIMITS, preprocess, blank, settings)
        yield connection


def stay_on(core: int) -> None:
    """Bind all threads of this process to one core; new threads inherit it."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def time_tasks(connection: Client, work: list[Work], files: list[Path]) -> float:
    """Return the seconds of all tasks, and remove their outputs.

    Args:
        connection: client of the cluster.
        work: the tasks.
        files: input files of the tasks; each is read once before the timing.
    """
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
    """Return the peak memory of a worker and of its decoding process, in MiB."""
    return peak_memory_mb() + guard.call(LIMITS, peak_memory_mb)
