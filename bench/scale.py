"""Time per image and peak memory of each stage by number of images (`make bench-scale`).

The results are docs/scale.csv and docs/scale.png.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

import cv2
import numpy as np
import pandas as pd
import typer
from distributed import Client, LocalCluster, Security
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from bench.contest import print_table
from bench.inputs import arguments
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError, tell_user
from medscale.base.files import read_json, write_csv, write_json
from medscale.base.memory import peak_memory_mb
from medscale.base.scratch import scratch
from medscale.data import lookalike
from medscale.data.build import build_shards
from medscale.data.certificates import security_of, write_certificate
from medscale.data.cluster import CERTIFICATES
from medscale.data.index import INDEX, build_index
from medscale.data.kind import scan
from medscale.data.settings import Dask, Preprocess, Source, Split
from medscale.data.signature import signature
from medscale.engine.plan import Augment
from medscale.report import style
from medscale.report.names import LOOKS

SIZE = 48  # pixels a side of the files: small, so that decoding does not hide the rest
SHARD = 32  # pixels a side in the shards
CLASSES, FOLDER_IMAGES = 8, 500  # classes, and images a folder
COPY = 10  # one image in ten is another one, mirrored and encoded again
BATCH = 256
AUGMENT = Augment(hflip=0.5, brightness=0.2)


def pictures(count: int, size: int) -> Iterator[np.ndarray]:
    """Yield random smooth pictures (uint8 RGB, size x size).

    Each COPY-th is the mirror image of the previous one.
    """
    rng = np.random.default_rng(0)
    picture: np.ndarray = np.zeros((size, size, 3), np.uint8)
    for number in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        if number % COPY == COPY - 1:
            picture = np.ascontiguousarray(picture[:, ::-1])
        else:
            picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        yield picture


def make_files(folder: Path, count: int) -> None:
    """Write ``count`` pictures as JPEG below ``folder/<class>``, ``FOLDER_IMAGES`` in a folder."""
    for number, picture in enumerate(pictures(count, SIZE)):
        block = number // FOLDER_IMAGES
        path = folder / f"class{block % CLASSES}" / f"{block:05d}" / f"{number}.jpg"
        if number % FOLDER_IMAGES == 0:
            path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), picture)


def index(folder: Path, dask: Dask) -> dict[str, float]:
    """Return the seconds to list the files, and to read, hash, compare, group and split them."""
    source = Source(kind="folder", path=folder / "raw")
    start = perf_counter()
    scan(source, None)
    listing = perf_counter() - start
    start = perf_counter()
    build_index(source, Split(), None, dask, folder / "data")  # lists the files again
    return {"listing": listing, "audit": perf_counter() - start - listing}


def preprocessing(folder: Path, dask: Dask) -> dict[str, float]:
    """Return the seconds to make the shards."""
    start = perf_counter()
    build_shards(
        folder / "data" / INDEX, folder / "raw", Preprocess(size=SHARD), dask, folder / "shards"
    )
    return {"preprocessing": perf_counter() - start}


def loading(folder: Path, dask: Dask) -> dict[str, float]:
    """Return the seconds to gather and augment all images on one thread.

    They are extrapolated from an epoch of the training images.
    """
    import torch

    from medscale.data.loader import Loader
    from medscale.data.shards import Shards

    torch.set_num_threads(1)
    shards = Shards.open(folder / "shards")
    loader = Loader(
        shards, "train", global_batch=BATCH, replicas=1, replica=0, training=True, augment=AUGMENT
    )
    start = perf_counter()
    for step in loader.epoch(0):
        del step
    return {"loading": (perf_counter() - start) * len(shards) / loader.images}


def near_duplicates(folder: Path, dask: Dask) -> dict[str, float]:
    """Return the seconds to find near-duplicates among signatures of as many pictures.

    They are seconds of one core's time, which other programs on the machine do not lengthen.
    """
    count = read_json(folder / "count.json")
    signatures = [signature(picture) for picture in pictures(count, SIZE)]
    cv2.setNumThreads(1)
    with threadpool_limits(1):
        start = process_time()
        links = lookalike.pairs(signatures)
        seconds = process_time() - start
    if len(links) < count // COPY:
        raise MedscaleError(f"{len(links)} pairs of look-alikes found of {count // COPY}")
    return {"near-duplicates": seconds}


STAGES: dict[str, Callable[[Path, Dask], dict[str, float]]] = {
    "index": index,
    "preprocessing": preprocessing,
    "loading": loading,
    "near-duplicates": near_duplicates,
}
WITH_DASK = ("index", "preprocessing")
# Order of the lines in table and figure.
ORDER = ("listing", "audit", "near-duplicates", "preprocessing", "loading")


def measure(stage: str, folder: Path, workers: int, out: Path) -> None:
    """Run a stage; write its seconds, and the peak memory (MB) of this process and of workers."""
    workers_mb = 0.0
    if stage in WITH_DASK:
        with _cluster(workers) as (address, connection):
            seconds = STAGES[stage](folder, Dask(scheduler=address))
            workers_mb = max(connection.run(peak_memory_mb).values())
    else:
        seconds = STAGES[stage](folder, Dask())
    write_json(out, {"seconds": seconds, "parent_mb": peak_memory_mb(), "worker_mb": workers_mb})


@contextmanager
def _cluster(workers: int) -> Iterator[tuple[str, Client]]:
    """Start workers, so that their start is not in the time."""
    local = {"host": "127.0.0.1", "dashboard_address": None, "memory_limit": 0}
    with (
        scratch("medscale-bench-") as folder,
        LocalCluster(
            workers, threads_per_worker=1, security=_certified(folder), **local
        ) as cluster,
        Client(cluster, set_as_default=False) as connection,
    ):
        yield cluster.scheduler_address, connection


def _certified(folder: Path) -> Security:
    """Make a certificate in a folder, which this process's clients use."""
    write_certificate(folder)
    os.environ[CERTIFICATES] = str(folder)
    return security_of(str(folder))


def draw(table: pd.DataFrame) -> Figure:
    """Draw microseconds an image and peak memory by number of images.

    The memory of loading includes the mapped shards.
    """
    figure = style.new(2.8)
    counts = sorted(set(table["images"]))
    left, right = figure.subplots(1, 2)
    for look, stage in zip(LOOKS, ORDER, strict=False):
        rows = table[table["stage"] == stage]
        line = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "label": stage}
        left.plot(rows["images"], rows["us_per_image"], **line)
        right.plot(rows["images"], rows["parent_mb"], **line)
    workers = table[table["worker_mb"] > 0].groupby("images")["worker_mb"].max()
    right.plot(workers.index, workers, color="black", linestyle=":", label="largest Dask worker")
    for axes, unit in ((left, "µs an image"), (right, "peak resident memory (MB)")):
        axes.set(xscale="log", xlabel="images", ylabel=unit, ylim=(0, None))
        axes.set_xticks(counts, [f"{count / 1000:g} k" for count in counts])
        axes.minorticks_off()
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def main(
    images: list[int] = typer.Option([1_000, 10_000, 100_000], help="numbers of images"),
    hashes: list[int] = typer.Option(
        [250_000], help="further numbers of images for near-duplicates alone"
    ),
    workers: int = typer.Option(len(os.sched_getaffinity(0)), help="Dask workers"),
    to: Path = typer.Option(ROOT / "docs", help="where scale.csv and scale.png are written"),
    stage: str = typer.Option("", hidden=True),
    folder: Path = typer.Option(Path(), hidden=True),
) -> None:
    """Make tiny images, run each stage on them in a separate process, and write the costs."""
    if stage:
        measure(stage, folder, workers, to)
        return
    rows = []
    for count in sorted({*images, *hashes}):
        with tempfile.TemporaryDirectory(prefix="medscale-bench-") as temporary:
            write_json(Path(temporary) / "count.json", count)
            if count in images:
                make_files(Path(temporary) / "raw", count)
            for stage_name in STAGES if count in images else ["near-duplicates"]:
                rows += _run(stage_name, Path(temporary), workers, count)
    table = pd.DataFrame(rows).sort_values(["images", "stage"], key=_place, ignore_index=True)
    write_csv(to / "scale.csv", table)
    with style.house():
        style.save(draw(table), to / "scale.png")
    print_table(table)


def _place(column: pd.Series) -> pd.Series:
    return column.map(ORDER.index) if column.name == "stage" else column


def _run(stage: str, folder: Path, workers: int, count: int) -> list[dict[str, object]]:
    out = folder / f"{stage}.json"
    options = {"--stage": stage, "--folder": folder, "--to": out, "--workers": workers}
    command = [sys.executable, "-m", "bench.scale", *arguments(options)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise MedscaleError(f"{stage} of {count} images failed:\n{process.stderr[-2000:]}")
    read = read_json(out)
    memory = {"parent_mb": round(read["parent_mb"]), "worker_mb": round(read["worker_mb"])}
    return [
        {
            "images": count,
            "stage": name,
            "seconds": round(value, 3),
            "us_per_image": round(1e6 * value / count, 1),
        }
        | {"workers": workers if stage in WITH_DASK else 1}
        | memory
        for name, value in read["seconds"].items()
    ]


if __name__ == "__main__":
    tell_user(typer.run)(main)
