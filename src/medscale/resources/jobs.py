"""What a job asks of SLURM: devices, memory, wall time, a name a person can read, and more where a failure says so."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medscale.config import planning
from medscale.config.configuration import Config
from medscale.engine.plan import RunPlan
from medscale.resources import cost
from medscale.resources.machines import Cluster

LOGS = Path("logs/slurm")  # below the project's root, as profiles/slurm says
SNAKEMAKE_MB = (
    800  # the Snakemake processes that lead to a job's command count as its memory: measured
)
DASK_WORKER_MB = 1500
RESOURCES = (
    "slurm_account",
    "slurm_partition",
    "nodes",
    "tasks",
    "tasks_per_gpu",
    "mpi",
    "gpu",
    "gpu_model",
    "gres",
    "cpus_per_task",
    "mem_mb",
    "runtime",
    "slurm_extra",
    "timed",
)
STEP_MINUTES = 5  # wall time is asked for in steps of so many
OUT_OF_TIME = re.compile(r"DUE TO TIME LIMIT")
OUT_OF_MEMORY = re.compile(
    r"oom[-_ ]?kill|exceeded (job|step) memory limit|OUT_OF_MEMORY|out-of-memory killer|MemoryError|"
    r"can(no|')t allocate memory",
    re.I,
)


@dataclass(frozen=True)
class Ask:
    """What a job needs by itself, before any failure.

    Attributes:
        nodes: machines.
        gpus: GPUs on each of them.
        cpus: CPU cores on each of them.
        minutes: wall time that is expected.
        memory_mb: memory on each node.
    """

    nodes: int
    gpus: int
    cpus: int
    minutes: float
    memory_mb: int


@dataclass(frozen=True)
class Failures:
    """How many of a job's attempts ended for lack of time, and of memory, by their logs."""

    time: int = 0
    memory: int = 0


def ask(config: Config, rule: str, wildcards: Mapping[str, str], cpus: int = 1) -> Ask:
    """What a rule's job needs by itself.

    Args:
        config: the configuration.
        rule: the rule's name.
        wildcards: its wildcards, such as ``study`` and ``run``.
        cpus: what the rule says by `threads`, which Snakemake cuts to the cores of the machine that it runs on itself;
            used where the configuration does not say it.

    Raises:
        MedscaleError: for an unknown study or run.
    """
    if rule in ("train", "profile"):
        plan = planning.plan(config, wildcards["study"], wildcards["run"], 0)
        gpus = plan.procs_per_node if plan.run.device == "gpu" else 0
        return Ask(
            nodes=plan.nodes,
            gpus=gpus,
            cpus=training_cpus(config, plan),
            minutes=cost.minutes(config, plan),
            memory_mb=cost.memory_mb(config, plan),
        )
    cpus = _cpus(config, rule, wildcards) or cpus
    stage = {"study_report": "report"}.get(rule, rule)
    known = cost.preparation(config, wildcards["study"], cpus) if "study" in wildcards else {}
    memory = DASK_WORKER_MB * cpus if rule in ("index", "shards", "enhance", "loading") else 0
    return Ask(nodes=1, gpus=0, cpus=cpus, minutes=known.get(stage, 0.0), memory_mb=memory)


def _cpus(config: Config, rule: str, wildcards: Mapping[str, str]) -> int | None:
    """Cores that the configuration gives to a rule's job; None where it does not say."""
    if rule in ("index", "shards"):
        return config.dask.workers or config.node.cpus if config.dask.scheduler == "local" else 1
    counts = {"enhance": "workers", "loading": "processes"}.get(rule)
    measured = getattr(config.study(wildcards["study"]).benchmarks, rule) if counts else None
    return max(getattr(measured, str(counts))) if measured else None


def training_cpus(config: Config, plan: RunPlan) -> int:
    """CPU cores of a node that a training uses: one a CPU process; beside GPUs their share of the node's."""
    if plan.backend == "cpu":
        return plan.procs_per_node
    return max(
        plan.procs_per_node, config.node.cpus * plan.procs_per_node // max(config.node.gpus, 1)
    )


def failures(folder: Path, attempts: int) -> Failures:
    """What the newest ``attempts`` logs in a folder of SLURM logs say about why their jobs ended."""
    logs = (
        sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[-attempts:]
        if attempts
        else []
    )
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in logs]
    return Failures(
        time=sum(OUT_OF_TIME.search(text) is not None for text in texts),
        memory=sum(OUT_OF_MEMORY.search(text) is not None for text in texts),
    )


def resources(
    cluster: Cluster, wanted: Ask, failed: Failures, name: str, *, warn: bool, most_mb: int | None
) -> dict[str, Any]:
    """A job's resources in the terms of Snakemake's SLURM plugin; None unsets one.

    One node gets one task with all its GPUs; several get one task each, which `srun` starts, and their GPUs as `gres`.
    Wall time and memory double with each failure that asks for it. A run that is expected to take longer than the
    partition allows takes several turns (profiles/slurm/job.sh).

    Args:
        cluster: the configuration's section.
        wanted: what the job needs by itself.
        failed: how its earlier attempts ended.
        name: what it is, for `squeue`.
        warn: whether it listens to the warning of its time limit.
        most_mb: memory of a node, if known.
    """
    minutes = max(cluster.least_minutes, cluster.safety * wanted.minutes) * 2**failed.time
    memory = (max(cluster.least_mb, wanted.memory_mb) + SNAKEMAKE_MB) * 2**failed.memory
    several = wanted.nodes > 1
    extra = [
        # The plugin's own comment joins wildcards by `_`, and sbatch takes the last one; `--comment` itself it refuses.
        f"--comme={shlex.quote(name)}",
        *([f"--signal=USR1@{cluster.save_s}"] if warn else []),
        "--open-mode=append",
        *(["--ntasks-per-node=1"] if several else []),
    ]
    return {
        "slurm_account": cluster.account,
        "slurm_partition": cluster.partition,
        "nodes": wanted.nodes,
        "tasks": wanted.nodes if several else None,
        "tasks_per_gpu": 0,
        "mpi": "srun" if several else None,
        "gpu": wanted.gpus if wanted.gpus and not several else None,
        "gpu_model": cluster.gpu_model if wanted.gpus and not several else None,
        "gres": _gres(cluster, wanted.gpus) if wanted.gpus and several else None,
        "cpus_per_task": wanted.cpus,
        "mem_mb": min(memory, most_mb or memory),
        "runtime": min(cluster.max_minutes, STEP_MINUTES * math.ceil(minutes / STEP_MINUTES)),
        "slurm_extra": " ".join(extra),
        "timed": None,  # each job has cores of its own: no waiting for each other as on one machine
    }


def srun(cluster: Cluster, wanted: Ask) -> str:
    """The command that starts one task on each node of a job over several."""
    gres = f" --gres={_gres(cluster, wanted.gpus)}" if wanted.gpus else ""
    return (
        f"srun --nodes={wanted.nodes} --ntasks={wanted.nodes} --ntasks-per-node=1 --cpus-per-task={wanted.cpus}{gres}"
        " --export=ALL --wait=60 "
    )


def called(rule: str, wildcards: Mapping[str, str], workdir: str) -> str:
    """What a job is, for a person: ``train glaucoma/ddp_2gpu seed1 (work/demo)``."""
    said = dict(wildcards)
    what = "/".join(said.pop(key) for key in ("study", "run") if key in said)
    seed = f"seed{said.pop('seed')}" if "seed" in said else ""
    return " ".join(part for part in (rule, what, seed, *said.values(), f"({workdir})") if part)


def _gres(cluster: Cluster, gpus: int) -> str:
    return ":".join(["gpu", *([cluster.gpu_model] if cluster.gpu_model else []), str(gpus)])
