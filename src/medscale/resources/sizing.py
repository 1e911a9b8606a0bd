"""`medscale size`: what the planned study needs on a given machine, and what breaks as it grows, by the cost model."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config import planning
from medscale.config.configuration import Config
from medscale.engine.plan import RunPlan
from medscale.resources import cost

RUN_FILES = 7  # spec, history, timing, predictions, model, environment, log
RESULT_FILES = 10
STUDY_FILES = 60  # figures, tables and logs
RECORD_BYTES = 300  # a row of rows.parquet with its strings, as pandas holds it in each rank
MEASURED_STAGES = ("listing", "audit", "near-duplicates")
GROWN = "skin/ddp_amp_4gpu"  # whose network and images the growth is told of


@dataclass(frozen=True)
class Machine:
    """So many GPUs of a kind with the cores of the configuration's node."""

    gpu: str
    gpus: int

    @classmethod
    def parse(cls, text: str) -> Machine:
        """Read "a100:4".

        Raises:
            MedscaleError: for anything else.
        """
        gpu, _, count = text.partition(":")
        if not gpu or not count.isdigit() or int(count) < 1:
            raise MedscaleError(
                f"{text!r} is no machine; write a kind of cost.devices and a number, such as a100:4"
            )
        return cls(gpu, int(count))


def on(config: Config, machine: Machine) -> Config:
    """The configuration with a machine's kind of GPU."""
    return config.model_copy(update={"cost": config.cost.model_copy(update={"gpu": machine.gpu})})


def studies(config: Config) -> pd.DataFrame:
    """What each study needs whatever the machine: ``study, images, runs, jobs, raw_gb, shards_gb, runs_gb, files``."""
    rows = []
    for name in _all(config):
        settings, disk = config.study(name), cost.storage(config, name)
        total, seeds = sum(cost.images(config, name).values()), len(config.seeds_of(name))
        chunk = settings.preprocess.chunk or min(max(math.ceil(total / 256), 16), 1024)
        sets = 2 if settings.detect is not None and settings.detection_runs else 1
        replicates, own = len(settings.runs) * seeds, config.owner(name) == name
        rows.append(
            {
                "study": name,
                "images": total,
                "runs": len(settings.runs),
                "jobs": 2 * replicates
                + len(settings.runs)
                + 1
                + sets
                + (3 if settings.variant_of is None else 0),
                "raw_gb": disk["raw"] / 1000,
                "shards_gb": disk["shards"] / 1000,
                "runs_gb": (disk["runs"] + disk["checkpoints"]) / 1000,
                "files": (total if own else 0)
                + sets * (2 * math.ceil(total / chunk) + 2)
                + replicates * RUN_FILES
                + len(settings.runs) * RESULT_FILES
                + STUDY_FILES,
            }
        )
    return pd.DataFrame(rows)


def trainings(config: Config, machine: Machine) -> pd.DataFrame:
    """Every configured run on a machine: ``study, run, replicates, gpus, cpus, minutes, hours`` (device-hours of all
    replicates), ``energy_kwh, money, measured, fits`` (whether the machine has enough devices).
    """
    config, rows = on(config, machine), []
    share = max(1, config.node.cpus // machine.gpus)
    for name in _all(config):
        for run in config.study(name).runs:
            plan = planning.plan(config, name, run, 0)
            one, seeds = cost.estimate(config, plan), len(config.seeds_of(name))
            gpus = plan.run.devices if plan.backend == "cuda" else 0
            cpus = min(gpus * share, config.node.cpus) if gpus else plan.run.devices
            rows.append(
                {
                    "study": name,
                    "run": run,
                    "replicates": seeds,
                    "gpus": gpus,
                    "cpus": cpus,
                    "minutes": one.minutes,
                    "hours": seeds * one.device_hours,
                    "energy_kwh": seeds * one.energy_kwh,
                    "money": seeds * one.money,
                    "measured": one.measured,
                    "fits": gpus <= machine.gpus and cpus <= config.node.cpus,
                }
            )
    return pd.DataFrame(rows)


def totals(config: Config, machine: Machine) -> dict[str, float]:
    """Sums over all trainings that a machine can carry out, with the preparation and the reports.

    Returns:
        ``gpu_hours, core_hours, energy_kwh, money`` (of the trainings), ``preparation_hours`` (index and shards, all
        cores), ``one_at_a_time_hours`` (trainings one after another, as the default profile has it so that times are
        not disturbed), ``packed_hours`` (as many at a time as there are devices), ``replicates, measured, left_out``.
    """
    table = trainings(config, machine)
    made = table[table["fits"]]
    columns = [made[name].tolist() for name in ("gpus", "cpus", "minutes", "replicates")]
    jobs = [
        (gpus, cpus, took)
        for gpus, cpus, took, many in zip(*columns, strict=True)
        for _ in range(many)
    ]
    stages = [cost.preparation(config, name, config.node.cpus) for name in _all(config)]
    return {
        "gpu_hours": float(made.loc[made["gpus"] > 0, "hours"].sum()),
        "core_hours": float(made.loc[made["gpus"] == 0, "hours"].sum()),
        "energy_kwh": float(made["energy_kwh"].sum()),
        "money": float(made["money"].sum()),
        "preparation_hours": sum(one["index"] + one["shards"] for one in stages) / 60,
        "one_at_a_time_hours": sum(minutes for _, _, minutes in jobs) / 60,
        "packed_hours": makespan(jobs, machine.gpus, config.node.cpus) / 60,
        "replicates": float(len(jobs)),
        "measured": float(made.loc[made["measured"], "replicates"].sum()),
        "left_out": float(table.loc[~table["fits"], "replicates"].sum()),
    }


def makespan(jobs: Sequence[tuple[int, int, float]], gpus: int, cpus: int) -> float:
    """Minutes until all jobs are done, the longest first, each begun as soon as its devices are free (Graham 1969).

    Args:
        jobs: GPUs, cores and minutes of each; none needs more than there are.
        gpus: of the machine.
        cpus: of the machine.
    """
    waiting = sorted(jobs, key=lambda job: -job[2])
    running: list[tuple[float, int, int]] = []
    now = 0.0
    while waiting:
        for job in [*waiting]:
            if job[0] <= gpus and job[1] <= cpus:
                waiting.remove(job)
                gpus, cpus = gpus - job[0], cpus - job[1]
                heapq.heappush(running, (now + job[2], job[0], job[1]))
        if waiting:
            now, more_gpus, more_cpus = heapq.heappop(running)
            gpus, cpus = gpus + more_gpus, cpus + more_cpus
    return max((end for end, _, _ in running), default=now)


def growth(config: Config, measured: Path, images: int, gpus: int) -> pd.DataFrame:
    """What each stage needs for so many images on so many GPUs, and where its limit lies.

    Args:
        config: the configuration; its skin study's images and network are those that grow.
        measured: docs/scale.csv, what stages cost by the number of images.
        images: of the index.
        gpus: of the training.

    Returns:
        ``stage, need, limit, breaks`` (images or GPUs at which the need reaches the limit; infinite for none),
        ``of`` (what ``breaks`` counts), ``source``: "measured to <n> images" or "computed".
    """
    study, run = GROWN.split("/")
    plan = planning.plan(_enough(config, gpus), study, run.replace("4gpu", f"{gpus}gpu"), 0)
    rows = [
        *_measured_rows(config, pd.read_csv(measured), images),
        *_data_rows(config, plan, images, gpus),
    ]
    table = pd.DataFrame([*rows, *_training_rows(_enough(config, gpus), plan, gpus)])
    return table.sort_values("reached", ascending=False, kind="stable", ignore_index=True)


def _all(config: Config) -> list[str]:
    return [*config.active, *(name for study in config.active for name in config.variants(study))]


def _enough(config: Config, gpus: int) -> Config:
    """The configuration with nodes whose GPUs divide the number wanted."""
    each = max(n for n in range(1, max(config.node.gpus, 1) + 1) if gpus % n == 0)
    return config.model_copy(update={"node": config.node.model_copy(update={"gpus": each})})


def _row(
    stage: str, need: str, limit: str, ratio: float, base: float, of: str, source: str
) -> dict[str, object]:
    """A stage whose need is ``ratio`` of its limit at ``base`` images or GPUs, to which it is proportional."""
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


def _measured_rows(config: Config, seen: pd.DataFrame, images: int) -> list[dict[str, object]]:
    """Memory and time of the stages of the index, each image's share taken from the largest measurement."""
    rows, host = [], config.cost.host_gb
    for stage in MEASURED_STAGES:
        part = seen[seen["stage"] == stage].sort_values("images")
        few, many = part.iloc[0], part.iloc[-1]
        kb = 1000 * (many["parent_mb"] - few["parent_mb"]) / (many["images"] - few["images"])
        memory = (few["parent_mb"] / 1000) + kb * images / 1e6
        slope = (
            np.polyfit(np.log(part["images"]), part["us_per_image"], 1)[0]
            if stage == "near-duplicates"
            else 0.0
        )
        micro = many["us_per_image"] + slope * math.log(images / many["images"])
        workers = int(many["workers"])
        hours = (
            micro * images / 1e6 / 3600 * workers / (config.node.cpus if stage == "audit" else 1)
        )
        cores = f"{config.node.cpus} cores" if stage == "audit" else "1 core"
        need = f"{memory:.1f} GB, {60 * hours:.0f} min on {cores}"
        source = f"measured to {int(many['images']):,} images"
        rows.append(
            _row(
                f"index: {stage}",
                need,
                f"{host:g} GB a node",
                memory / host,
                images,
                "images",
                source,
            )
        )
    return rows


def _data_rows(config: Config, plan: RunPlan, images: int, gpus: int) -> list[dict[str, object]]:
    """Where shards lie while training reads them: device memory, page cache, the shared file system."""
    settings, kind = config.study(plan.study), cost.device(config, plan)
    each = 3 * settings.preprocess.size**2 / 1e9
    whole, train = images * each, images * settings.split.train * each
    device, cache = cost.RESIDENT_SHARE * kind.memory_gb, 0.8 * config.cost.host_gb
    demand = gpus * cost.images_per_second(config, _single(config, plan)) * each
    known = cost.expected(config, plan.study)
    hours = images / known.per_core / 3600 / config.node.cpus
    cores = config.node.cpus
    chunks = math.ceil(images / 1024)
    ranks = images * RECORD_BYTES * config.node.gpus / 1e9
    node = f"{cache:g} GB a node"
    computed = "computed"
    return [
        _row(
            "shards on the GPU",
            f"{train:,.0f} GB",
            f"{device:g} GB a GPU",
            train / device,
            images,
            "images",
            computed,
        ),
        _row(
            "shards in page cache",
            f"{train:,.0f} GB",
            node,
            train / cache,
            images,
            "images",
            computed,
        ),
        _row(
            "reading shards from storage",
            f"{demand:.1f} GB/s",
            f"{config.cost.file_system_gb_s:g} GB/s",
            demand / config.cost.file_system_gb_s,
            gpus,
            "GPUs",
            computed,
        ),
        _row(
            "rows of the index in each rank",
            f"{ranks:.0f} GB",
            node,
            ranks / cache,
            images,
            "images",
            computed,
        ),
        _row(
            "preprocessing",
            f"{60 * hours:.0f} min on {cores} cores, {whole / 1000:.1f} TB",
            "a day",
            hours / 24,
            images,
            "images",
            computed,
        ),
        _row(
            "shard files",
            f"{2 * chunks:,} files",
            "1,000,000 files",
            2 * chunks / 1e6,
            images,
            "images",
            computed,
        ),
        _row(
            "Dask tasks",
            f"{chunks:,} tasks",
            "100,000 tasks",
            chunks / 1e5,
            images,
            "images",
            "0.2 ms a task: measured",
        ),
    ]


def _training_rows(config: Config, plan: RunPlan, gpus: int) -> list[dict[str, object]]:
    """The all-reduce beside the step it hides in, and the number of jobs."""
    one = _single(config, plan)
    step, alone = cost.step_seconds(config, plan), cost.step_seconds(config, one)
    reduce, half = cost.allreduce_seconds(config, plan), gpus
    while half < 2**20 and alone / cost.step_seconds(config, _on_gpus(config, plan, half)) > 0.5:
        half *= 2
    jobs = int(studies(config)["jobs"].sum())
    return [
        _row(
            "all-reduce between nodes",
            f"{1000 * reduce:.1f} ms of a step of {1000 * step:.0f} ms; efficiency {alone / step:.2f}",
            "efficiency 0.5",
            gpus / half,
            gpus,
            "GPUs",
            "computed; like published runs to 64 GPUs",
        ),
        _row(
            "Snakemake jobs",
            f"{jobs:,} jobs",
            "10,000 jobs",
            jobs / 1e4,
            math.inf,
            "images",
            "counted",
        ),
    ]


def _on_gpus(config: Config, plan: RunPlan, gpus: int) -> RunPlan:
    """The same run on another number of devices."""
    spec = plan.run.model_copy(update={"devices": gpus})
    return planning.plan(_enough(config, gpus), plan.study, spec, plan.seed)


def _single(config: Config, plan: RunPlan) -> RunPlan:
    return _on_gpus(config, plan, 1)


def text(
    config: Config, machines: Sequence[Machine], measured: Path, images: int, gpus: int
) -> str:
    """All of it as Markdown: studies, machines, runs, growth.

    Raises:
        MedscaleError: when the configuration does not describe a machine's kind of GPU.
    """
    parts = ["## What each study needs", _markdown(_with_sum(studies(config)))]
    sums = {
        f"{m.gpus} x {config.cost.devices[m.gpu].title}": totals(config, m)
        for m in _known(config, machines)
    }
    parts += [
        "## On which machine how long",
        _machines(config, sums),
        "## Each run",
        _runs(config, machines),
    ]
    grown = growth(on(config, machines[0]), measured, images, gpus).drop(columns="reached")
    breaks = [
        _breaks(value, of) for value, of in zip(grown["breaks"], grown.pop("of"), strict=True)
    ]
    head = f"## {images:,} images on {gpus} GPUs ({config.cost.devices[machines[0].gpu].title})"
    return "\n\n".join([*parts, head, _markdown(grown.assign(breaks=breaks))]) + "\n"


def _known(config: Config, machines: Sequence[Machine]) -> Sequence[Machine]:
    for machine in machines:
        if machine.gpu not in config.cost.devices:
            raise MedscaleError(
                f"cost.devices has no {machine.gpu!r}; there are: {', '.join(config.cost.devices)}"
            )
    return machines


def _machines(config: Config, sums: dict[str, dict[str, float]]) -> str:
    words = {
        "replicates": "replicates trained",
        "left_out": "replicates that need more GPUs than there are",
        "measured": "of the replicates, measured (the others estimated)",
        "gpu_hours": "GPU-hours",
        "core_hours": "core-hours of CPU runs",
        "preparation_hours": f"hours of index and shards on {config.node.cpus} cores",
        "one_at_a_time_hours": "hours, one training at a time (as timed)",
        "packed_hours": "hours, as many trainings at a time as fit",
        "energy_kwh": "kWh of the devices at full power",
        "money": config.cost.currency,
    }
    table = pd.DataFrame({"": list(words.values())})
    for name, values in sums.items():
        table[name] = [_round(values[key]) for key in words]
    return _markdown(table)


def _runs(config: Config, machines: Sequence[Machine]) -> str:
    """Minutes of a replicate of each run, a column a machine."""
    first = trainings(config, machines[0])
    table = first[["study", "run", "replicates"]].copy()
    for machine in machines:
        here = trainings(config, machine)
        cells = zip(here["minutes"], here["measured"], here["fits"], strict=True)
        column = [
            f"{_round(m)}{' (measured)' if seen else ''}" if fits else "-"
            for m, seen, fits in cells
        ]
        table[f"min on {machine.gpus} x {machine.gpu}"] = column
    return _markdown(table)


def _with_sum(table: pd.DataFrame) -> pd.DataFrame:
    total = table.sum(numeric_only=True)
    return pd.concat(
        [table, pd.DataFrame([{"study": "all", **total.to_dict(), "images": float("nan")}])]
    )


def _breaks(value: float, of: str) -> str:
    return f"{float(f'{value:.2g}'):,.0f} {of}" if math.isfinite(value) else "never"


def _round(value: object) -> str:
    if not isinstance(value, (int, float)):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _markdown(table: pd.DataFrame) -> str:
    rows = [[_round(value) for value in row] for row in table.itertuples(index=False, name=None)]
    columns = [str(name).replace("_", " ") for name in table.columns]
    widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
