"""The needs of each stage as images and GPUs grow, and where its limit lies."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from medscale.config import planning
from medscale.config.configuration import Config
from medscale.data.limits import LARGEST_CHUNK, RESIDENT_SHARE
from medscale.engine.plan import RunPlan
from medscale.resources import cost
from medscale.resources.workload import studies

RECORD_BYTES = 300  # of a row of rows.parquet with its strings, as pandas holds it in each rank
CACHE_SHARE = 0.8  # of a node's memory that can hold files
MEASURED_STAGES = ("listing", "audit", "near-duplicates")
RUN = "skin/ddp_amp_4gpu"  # the study and the network that grow
MAX_GPUS = 2**20  # at which the search for the limit of efficiency ends

Row = dict[str, object]


def growth(config: Config, measured: Path, images: int, gpus: int) -> pd.DataFrame:
    """Compute the needs of each stage for some number of images and GPUs.

    Args:
        config: the configuration; images and network are those of ``RUN``.
        measured: path of docs/scale.csv, the measured cost of stages by number of images.
        images: images of the index.
        gpus: GPUs of the training.

    Returns:
        A row for each stage, by the part of its limit that it reaches: ``stage, need, limit,
        reached`` (need divided by limit), ``breaks`` (images or GPUs at which the need reaches the
        limit; infinite if never), ``of`` (the unit of ``breaks``), ``source``.
    """
    study, run = RUN.split("/")
    nodes = _with_nodes(config, gpus)
    plan = planning.plan(nodes, study, run.replace("4gpu", f"{gpus}gpu"), 0)
    table = pd.DataFrame(
        [
            *_measured_rows(config, pd.read_csv(measured), images),
            *_data_rows(config, plan, images, gpus),
            *_training_rows(nodes, plan, gpus),
        ]
    )
    return table.sort_values("reached", ascending=False, kind="stable", ignore_index=True)


def _with_nodes(config: Config, gpus: int) -> Config:
    """Return the configuration with nodes whose number of GPUs divides ``gpus``."""
    each = max(n for n in range(1, max(config.node.gpus, 1) + 1) if gpus % n == 0)
    return config.model_copy(update={"node": config.node.model_copy(update={"gpus": each})})


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
    """Return a row whose need is the part ``ratio`` of its limit at ``base`` images or GPUs.

    The need is proportional to the number of images or GPUs.
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
        few, many = part.iloc[0], part.iloc[-1]
        kb = 1000 * (many["parent_mb"] - few["parent_mb"]) / (many["images"] - few["images"])
        memory = (few["parent_mb"] / 1000) + kb * images / 1e6
        # Only the search for near-duplicates has a time per image that grows, by the logarithm.
        logs = np.log(part["images"])
        grows = stage == "near-duplicates"
        slope = np.polyfit(logs, part["us_per_image"], 1)[0] if grows else 0.0
        micro = many["us_per_image"] + slope * math.log(images / many["images"])
        cores = config.node.cpus if stage == "audit" else 1
        hours = micro * images / 1e6 / 3600 * int(many["workers"]) / cores
        on_cores = f"{cores} cores" if stage == "audit" else "1 core"
        rows.append(
            _row(
                f"index: {stage}",
                f"{memory:.1f} GB, {60 * hours:.0f} min on {on_cores}",
                f"{host:g} GB a node",
                memory / host,
                base=images,
                source=f"measured to {int(many['images']):,} images",
            )
        )
    return rows


def _data_rows(config: Config, plan: RunPlan, images: int, gpus: int) -> list[Row]:
    """Compute where shards lie while training reads them: GPU, page cache, shared storage."""
    settings, kind = config.study(plan.study), cost.device(config, plan)
    row = partial(_row, base=images)
    each = 3 * settings.preprocess.size**2 / 1e9
    whole, train = images * each, images * settings.split.train * each
    device, cache = RESIDENT_SHARE * kind.memory_gb, CACHE_SHARE * config.cost.host_gb
    rate = gpus * cost.images_per_second(config, _on_gpus(config, plan, 1)) * each
    storage, cores = config.cost.file_system_gb_s, config.node.cpus
    hours = images / cost.expected(config, plan.study).per_core / 3600 / cores
    preprocessing = f"{60 * hours:.0f} min on {cores} cores, {whole / 1000:.1f} TB"
    chunks = math.ceil(images / LARGEST_CHUNK)
    files, tasks = f"{2 * chunks:,} files", f"{chunks:,} tasks"
    ranks = images * RECORD_BYTES * config.node.gpus / 1e9
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


def _training_rows(config: Config, plan: RunPlan, gpus: int) -> list[Row]:
    """Compute the all-reduce in relation to the step that hides it, and the number of jobs."""
    step = cost.step_seconds(config, plan)
    alone = cost.step_seconds(config, _on_gpus(config, plan, 1))
    reduce, half = cost.allreduce_seconds(config, plan), gpus
    while half < MAX_GPUS and alone / cost.step_seconds(config, _on_gpus(config, plan, half)) > 0.5:
        half *= 2
    times = f"{1000 * reduce:.1f} ms of a step of {1000 * step:.0f} ms"
    jobs = int(studies(config)["jobs"].sum())
    count = f"{jobs:,} jobs"
    return [
        _row(
            "all-reduce between nodes",
            f"{times}; efficiency {alone / step:.2f}",
            "efficiency 0.5",
            gpus / half,
            base=gpus,
            of="GPUs",
            source="computed; like published runs to 64 GPUs",
        ),
        # Jobs grow with runs and seeds, not with images.
        _row("Snakemake jobs", count, "10,000 jobs", jobs / 1e4, base=math.inf, source="counted"),
    ]


def _on_gpus(config: Config, plan: RunPlan, gpus: int) -> RunPlan:
    """Return the same run on another number of devices."""
    spec = plan.run.model_copy(update={"devices": gpus})
    return planning.plan(_with_nodes(config, gpus), plan.study, spec, plan.seed)
