"""Two Dask workers against one, and against a plain pool of two processes, on the same chunks."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from time import perf_counter

import cv2
import pandas as pd
from distributed import Client

from bench.contest import judge, ratio, show, take_turns
from bench.preprocessing import RECIPES, make_files
from medscale.base.errors import MedscaleError
from medscale.data.build import Work, chunks, make_chunk
from medscale.data.limits import chunk_size
from medscale.measure.enhance import cluster, stay_on, time_tasks
from medscale.measure.record import cores, start_method

ONE, TWO, POOL = "1 Dask worker", "2 Dask workers", "pool of 2 processes"
EFFICIENCY, BEHIND = 0.95, 1.05  # aims


def contest(folder: Path, rounds: int, images: int) -> None:
    """Preprocess the same images in each way; print seconds, efficiency and ratio to the pool."""
    recipe, kind = RECIPES["glaucoma"], "PNG 512"
    originals = make_files(folder, min(images, 32), [kind])[kind]
    files = [originals[number % len(originals)] for number in range(images)]
    table = pd.DataFrame(files, columns=["path", "sha256", "width", "height"])
    work = chunks(table, folder, recipe, folder / "out", chunk_size(images))
    paths = [folder / file[0] for file in originals]
    with (
        cluster(1, folder, recipe) as single,
        cluster(2, folder, recipe) as double,
        pool() as processes,
    ):
        ways = {
            ONE: partial(_by_dask, single, work, paths),
            TWO: partial(_by_dask, double, work, paths),
            POOL: partial(_by_pool, processes, work),
        }
        for way in ways.values():  # the first pass warms up
            way(0)
        times = take_turns(ways, rounds)
    show(
        times,
        ONE,
        f"Preprocessing {images} PNG of 512 px in {len(work)} chunks, without the workers' start",
    )
    judge(f"efficiency of 2 Dask workers (aim: at least {EFFICIENCY})", *_efficiency(times, TWO))
    judge("efficiency of the pool", *_efficiency(times, POOL))
    behind = ratio(times, TWO, POOL)
    judge(f"2 Dask workers / {POOL} (aim: at most {BEHIND})", behind, behind[0] <= BEHIND)


def pool() -> ProcessPoolExecutor:
    """Return two processes with one core and one thread each, like the Dask workers."""
    context = start_method("medscale.data.build")
    own = cores()
    places: Queue[int] = context.Queue()
    for number in range(2):
        places.put(own[number % len(own)])
    return ProcessPoolExecutor(2, context, _settle, (places,))


def _settle(places: Queue[int]) -> None:
    stay_on(places.get())
    cv2.setNumThreads(1)


def _by_dask(connection: Client, work: list[Work], files: list[Path], number: int) -> float:
    return time_tasks(connection, work, files)


def _by_pool(processes: ProcessPoolExecutor, work: list[Work], number: int) -> float:
    out = Path(work[0][0])
    out.mkdir(parents=True)
    start = perf_counter()
    for future in as_completed([processes.submit(make_chunk, *chunk) for chunk in work]):
        if isinstance(result := future.result(), MedscaleError):
            raise result
    seconds = perf_counter() - start
    shutil.rmtree(out)
    return seconds


def _efficiency(table: pd.DataFrame, way: str) -> tuple[tuple[float, float, float], bool]:
    """Return the efficiency of two processes with its range, and whether it reaches the aim."""
    middle, low, high = (value / 2 for value in ratio(table, ONE, way))
    return (middle, low, high), middle >= EFFICIENCY
