"""Needs of each stage for growing numbers of images and GPUs, and its limits."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from medscale.config import planning
from medscale.config.configuration import Config
from medscale.data.limits import LARGEST_CHUNK, RESIDENT_SHARE
from medscale.engine.plan import RunPlan
from medscale.engine.run import MOST_DEVICES
from medscale.resources import compute, cost
from medscale.resources.workload import studies

RECORD_BYTES = 300  # memory of a row of rows.parquet in pandas, with its strings; each rank has all
CACHE_SHARE = 0.8  # share of a node's memory that can cache files
MEASURED_STAGES = ("listing", "audit", "near-duplicates")
RUN = "skin/ddp_amp_4gpu"  # study and run whose images and GPUs grow

Row = dict[str, object]


def growth(config: Config, measured: Path, images: int, gpus: int) -> pd.DataFrame:
    """Compute the needs of each stage for some number of images and GPUs.

    Args:
        config: the configuration; images and network are those of ``RUN``.
        measured: path of docs/scale.csv, the measured cost of stages by number of images.
        images: number of images in the index.
        gpus: number of GPUs of the training.

    Returns:
        One row for each stage, sorted by ``reached`` in descending order: ``stage, need, limit,
        reached`` (need divided by limit), ``breaks`` (number of images or GPUs at which the need
        equals the limit; infinite if never), ``of`` (unit of ``breaks``), ``source``.
    """
    study, run = RUN.split("/")
    nodes = _with_nodes(config, gpus)
    plan = planning.plan(nodes, study, run.replace("4gpu", f"{gpus}gpu"), 0)
    table = pd.DataFrame(
        [
            *_measured_rows(config, pd.read_csv(measured), images),
            *_data_rows(config, plan, images, gpus),
            _efficiency_row(nodes, plan, gpus),
            _jobs_row(config),
        ]
    )
    return table.sort_values("reached", ascending=False, kind="stable", ignore_index=True)


def _with_nodes(config: Config, gpus: int) -> Config:
    """Return the configuration with the largest nodes whose number of GPUs divides ``gpus``."""
    gpus_per_node = max(n for n in range(1, max(config.node.gpus, 1) + 1) if gpus % n == 0)
    return config.model_copy(
        update={"node": config.node.model_copy(update={"gpus": gpus_per_node})}
    )


def _row(
    stage: str,
    need: str,
    limit: str,
    ratio: float,
    *,
    base: float,
    of: str = "images",
    source: str = "computed",
) -> Row:
    """Return a row whose need is ``ratio`` times its limit at ``base`` images or GPUs.

    The need is taken as proportional to the number of images or GPUs.
    """
    breaks = base / ratio if ratio > 0 else math.inf
    return {
        "stage": stage,
        "need": need,
        "limit": limit,
        "reached": ratio,
        "breaks": breaks,
        "of": of,
        "source": source,
    }


def _measured_rows(config: Config, measured: pd.DataFrame, images: int) -> list[Row]:
    """Extrapolate memory and time of the stages of the index from the largest measurement."""
    rows, host = [], config.cost.host_gb
    for stage in MEASURED_STAGES:
        part = measured[measured["stage"] == stage].sort_values("images")
        smallest, largest = part.iloc[0], part.iloc[-1]
        kb = (
            1000
            * (largest["parent_mb"] - smallest["parent_mb"])
            / (largest["images"] - smallest["images"])
        )
        memory = (smallest["parent_mb"] / 1000) + kb * images / 1e6
        # Only the search for near-duplicates has a time per image that grows, with the logarithm.
        logs = np.log(part["images"])
        grows = stage == "near-duplicates"
        slope = np.polyfit(logs, part["us_per_image"], 1)[0] if grows else 0.0
        micro = largest["us_per_image"] + slope * math.log(images / largest["images"])
        cores = config.node.cpus if stage == "audit" else 1
        hours = micro * images / 1e6 / 3600 * int(largest["workers"]) / cores
        on_cores = f"{cores} cores" if stage == "audit" else "1 core"
        rows.append(
            _row(
                f"index: {stage}",
                f"{memory:.1f} GB, {60 * hours:.0f} min on {on_cores}",
                f"{host:g} GB a node",
                memory / host,
                base=images,
                source=f"measured to {int(largest['images']):,} images",
            )
        )
    return rows


def _data_rows(config: Config, plan: RunPlan, images: int, gpus: int) -> list[Row]:
    """Compute the needs of the data: shards on the GPU, in the page cache or on shared storage."""
    settings, kind = config.study(plan.study), compute.device(config, plan)
    row = partial(_row, base=images)
    image_gb = 3 * settings.preprocess.size**2 / 1e9
    whole, train = images * image_gb, images * settings.split.train * image_gb
    device, cache = RESIDENT_SHARE * kind.memory_gb, CACHE_SHARE * config.cost.host_gb
    rate = gpus * cost.images_per_second(config, _on_gpus(config, plan, 1)) * image_gb
    storage, cores = config.cost.file_system_gb_s, config.node.cpus
    hours = images / cost.expected_images(config, plan.study).per_core / 3600 / cores
    preprocessing = f"{60 * hours:.0f} min on {cores} cores, {whole / 1000:.1f} TB"
    chunks = math.ceil(images / LARGEST_CHUNK)
    files, tasks = f"{2 * chunks:,} files", f"{chunks:,} tasks"
    ranks = images * RECORD_BYTES * plan.procs_per_node / 1e9
    node, measured = f"{cache:g} GB a node", "0.2 ms a task: measured"
    on_gpu = row("shards on the GPU", f"{train:,.0f} GB", f"{device:g} GB a GPU", train / device)
    need, limit = f"{rate:.1f} GB/s", f"{storage:g} GB/s"
    reading = row("reading shards from storage", need, limit, rate / storage, base=gpus, of="GPUs")
    return [
        on_gpu,
        row("shards in page cache", f"{train:,.0f} GB", node, train / cache),
        reading,
        row("rows of the index in each rank", f"{ranks:.0f} GB", node, ranks / cache),
        row("preprocessing", preprocessing, "a day", hours / 24),
        row("shard files", files, "1,000,000 files", 2 * chunks / 1e6),
        row("Dask tasks", tasks, "100,000 tasks", chunks / 1e5, source=measured),
    ]


def _efficiency_row(config: Config, plan: RunPlan, gpus: int) -> Row:
    """Compare the time of a step with that on one GPU; the row breaks where it doubles."""
    step, reduce = cost.step_seconds(config, plan), cost.allreduce_seconds(config, plan)
    one_gpu = cost.step_seconds(config, _on_gpus(config, plan, 1))

    def is_half(number: int) -> bool:
        return one_gpu / cost.step_seconds(config, _on_gpus(config, plan, number)) <= 0.5

    counts = range(1, MOST_DEVICES + 1)
    place = bisect_left(counts, True, key=is_half)
    half = counts[place] if place < len(counts) else math.inf
    times = f"{1000 * reduce:.1f} ms of a step of {1000 * step:.0f} ms"
    return _row(
        "all-reduce between nodes",
        f"{times}; efficiency {one_gpu / step:.2f}",
        "efficiency 0.5",
        gpus / half,
        base=gpus,
        of="GPUs",
        source="computed; like published runs to 64 GPUs",
    )


def _jobs_row(config: Config) -> Row:
    """Add up the jobs of all studies, which grow with runs and seeds, not with images."""
    jobs = int(studies(config)["jobs"].sum())
    count = f"{jobs:,} jobs"
    return _row("Snakemake jobs", count, "10,000 jobs", jobs / 1e4, base=math.inf)


def _on_gpus(config: Config, plan: RunPlan, gpus: int) -> RunPlan:
    """Return the same run on another number of devices."""
    spec = plan.run.model_copy(update={"devices": gpus})
    return planning.plan(_with_nodes(config, gpus), plan.study, spec, plan.seed)
