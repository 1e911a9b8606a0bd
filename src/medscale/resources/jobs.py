"""Resources that jobs request from SLURM: devices, memory and wall time."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medscale.config import planning
from medscale.config.configuration import Config
from medscale.engine.plan import RunPlan
from medscale.resources import benchmarks, cost
from medscale.resources.machines import Cluster, SbatchOption
from medscale.resources.slurm import is_of

SNAKEMAKE_MB = 800  # measured memory of the Snakemake processes in a job, which start its command
DASK_WORKER_MB = 1500
REPORT_RULE = "_report"  # ends the name of the rule of each chapter
DASK_RULES = ("index", "shards", "enhance", "loading")
# Rules whose jobs use all cores of the machine on which they run.
ALL_CORES = ("demo_data", "external", "export", "inference")
RESOURCES = (
    "slurm_account",
    "slurm_partition",
    "qos",
    "constraint",
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
# Options of sbatch that Snakemake's plugin takes as resources.
PLUGIN_OPTIONS: tuple[SbatchOption, ...] = ("qos", "constraint")
STEP_MINUTES = 5  # wall times are multiples of it
OUT_OF_TIME = re.compile(r"DUE TO TIME LIMIT")
OUT_OF_MEMORY = re.compile(
    r"oom[-_ ]?kill|exceeded (job|step) memory limit|OUT_OF_MEMORY|out-of-memory killer|"
    r"MemoryError|can(no|')t allocate memory",
    re.I,
)


@dataclass(frozen=True)
class Request:
    """The needs of a job at its first attempt."""

    nodes: int  # number of nodes
    gpus: int  # GPUs of each node
    cpus: int  # CPU cores of each node
    minutes: float  # expected wall time
    memory_mb: int  # memory of each node


@dataclass(frozen=True)
class Failures:
    """Numbers of failed attempts of a job by cause, from their logs."""

    time: int = 0  # attempts that ran out of time
    memory: int = 0  # attempts that ran out of memory


def request(config: Config, rule: str, wildcards: Mapping[str, str], cpus: int = 1) -> Request:
    """Return the needs of a rule's job.

    Args:
        config: the configuration.
        rule: name of the rule.
        wildcards: wildcards of the job, such as ``study`` and ``run``.
        cpus: number of cores if the configuration does not set it: ``threads`` of the rule, which
            Snakemake limits to the cores of the machine on which it runs.

    Raises:
        MedscaleError: for an unknown study or run.
    """
    if rule in ("train", "profile"):
        plan = planning.plan(config, wildcards["study"], wildcards["run"], 0)
        estimate = cost.estimate(config, plan)
        return Request(
            nodes=plan.nodes,
            gpus=plan.procs_per_node if plan.run.device == "gpu" else 0,
            cpus=training_cpus(config, plan),
            minutes=estimate.minutes,
            memory_mb=estimate.memory_mb,
        )
    if rule == "formats":
        return _formats(config, wildcards["study"])
    processes = _processes(config, rule, wildcards) or cpus
    # SLURM refuses a job that asks for more cores than a node has.
    cpus = min(processes, config.node.cpus) if config.cluster else processes
    memory = DASK_WORKER_MB * processes if rule in DASK_RULES else 0
    minutes = _minutes(config, rule, wildcards, cpus)
    return Request(nodes=1, gpus=0, cpus=cpus, minutes=minutes, memory_mb=memory)


def _minutes(config: Config, rule: str, wildcards: Mapping[str, str], cpus: int) -> float:
    """Return the expected minutes of a job without a GPU; 0 if the cost model does not know it."""
    minutes = benchmarks.minutes(config, rule, wildcards, cpus)
    if minutes is None and "study" in wildcards:
        stages = cost.preparation(config, wildcards["study"], cpus)
        minutes = stages.get(stage_of(rule))
    return minutes or 0.0


def stage_of(rule: str) -> str:
    """Return the stage of a rule; all chapters are one, whose whole time each of them requests."""
    return "report" if rule.endswith(REPORT_RULE) else rule


def _formats(config: Config, study: str) -> Request:
    """Return the needs of the benchmark of number formats: one training per format and seed."""
    settings = config.study(study).benchmarks.formats
    assert settings is not None
    needs = request(config, "train", {"study": study, "run": settings.run})
    estimates = cost.of_formats(config, study)
    return replace(
        needs,
        minutes=sum(estimate.minutes for estimate in estimates),
        memory_mb=max(estimate.memory_mb for estimate in estimates),
    )


def _processes(config: Config, rule: str, wildcards: Mapping[str, str]) -> int | None:
    """Return the processes or threads that the configuration gives to a rule's job, or None."""
    # without a cluster the job has the cores of this machine, which `node` does not describe
    node_cpus = config.node.cpus if config.cluster else None
    if rule in ("index", "shards"):
        return config.dask.workers or node_cpus if config.dask.scheduler == "local" else 1
    if rule in ALL_CORES:
        return node_cpus
    counts = {"enhance": "workers", "loading": "processes"}.get(rule)
    measured = getattr(config.study(wildcards["study"]).benchmarks, rule) if counts else None
    return max(getattr(measured, str(counts))) if measured else None


def training_cpus(config: Config, plan: RunPlan) -> int:
    """Return the number of CPU cores of a node that a training uses.

    A CPU process uses one core. Processes on GPUs use a share of the node's cores in proportion to
    their GPUs.
    """
    if plan.backend == "cpu":
        return plan.procs_per_node
    return max(
        plan.procs_per_node, config.node.cpus * plan.procs_per_node // max(config.node.gpus, 1)
    )


def failures(folder: Path, attempts: int, workdir: str) -> Failures:
    """Count the failures in the newest ``attempts`` logs of a workdir in a folder of SLURM logs."""
    logs = [log for log in folder.glob("*.log") if is_of(log, workdir)] if attempts else []
    logs = sorted(logs, key=lambda file: file.stat().st_mtime)[-attempts:]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in logs]
    return Failures(
        time=sum(OUT_OF_TIME.search(text) is not None for text in texts),
        memory=sum(OUT_OF_MEMORY.search(text) is not None for text in texts),
    )


def resources(
    cluster: Cluster,
    needs: Request,
    failures_before: Failures,
    name: str,
    *,
    warn: bool,
    limit_mb: int | None,
) -> dict[str, Any]:
    """Return a job's resources by the names of Snakemake's SLURM plugin; None unsets a resource.

    A job on one node is one task with all its GPUs. On several nodes, each node has one task, which
    ``srun`` starts, and its GPUs are given as ``gres``. After a failure for lack of time or memory,
    the request for it doubles. A run that takes longer than the partition allows runs in several
    turns (profiles/slurm/job.sh).

    Args:
        cluster: section ``cluster`` of the configuration.
        needs: needs of the job.
        failures_before: failures of its earlier attempts.
        name: description of the job, for ``squeue``.
        warn: whether the job handles the signal before its time limit.
        limit_mb: memory of a node; None if unknown.
    """
    minutes = max(cluster.least_minutes, cluster.safety * needs.minutes) * 2**failures_before.time
    memory = (max(cluster.least_mb, needs.memory_mb) + SNAKEMAKE_MB) * 2**failures_before.memory
    is_multi_node = needs.nodes > 1
    return {
        "slurm_account": cluster.account,
        "slurm_partition": cluster.partition_of(needs.gpus),
        **{name: cluster.options.get(name) for name in PLUGIN_OPTIONS},
        "nodes": needs.nodes,
        "tasks": needs.nodes if is_multi_node else None,
        "tasks_per_gpu": 0,
        "mpi": "srun" if is_multi_node else None,
        "gpu": needs.gpus if needs.gpus and not is_multi_node else None,
        "gpu_model": cluster.gpu_model if needs.gpus and not is_multi_node else None,
        "gres": gres(cluster, needs.gpus) if needs.gpus and is_multi_node else None,
        "cpus_per_task": needs.cpus,
        "mem_mb": min(memory, limit_mb or memory),
        "runtime": min(cluster.max_minutes, STEP_MINUTES * math.ceil(minutes / STEP_MINUTES)),
        "slurm_extra": _sbatch_options(cluster, name, warn=warn, is_multi_node=is_multi_node),
        "timed": None,  # jobs have separate cores, so timed runs need not wait for each other
    }


def _sbatch_options(cluster: Cluster, name: str, *, warn: bool, is_multi_node: bool) -> str:
    """Return the options of sbatch for which Snakemake's plugin has no resource."""
    options = [
        # The plugin sets a comment that joins wildcards by `_`. sbatch takes the last comment: this
        # one. The plugin refuses `--comment`, but not its abbreviation.
        f"--comme={shlex.quote(name)}",
        *([f"--signal=USR1@{cluster.save_s}"] if warn else []),
        "--open-mode=append",
        *(
            f"--{option}={shlex.quote(value)}"
            for option, value in cluster.options.items()
            if option not in PLUGIN_OPTIONS
        ),
        *(["--ntasks-per-node=1"] if is_multi_node else []),
    ]
    return " ".join(options)


def srun(cluster: Cluster, needs: Request) -> str:
    """Return the beginning of a command that starts one task on each node of a job."""
    devices = f" --gres={gres(cluster, needs.gpus)}" if needs.gpus else ""
    return (
        f"srun --nodes={needs.nodes} --ntasks={needs.nodes} --ntasks-per-node=1 "
        f"--cpus-per-task={needs.cpus}{devices} --export=ALL --wait=60 "
    )


def description(rule: str, wildcards: Mapping[str, str], workdir: str) -> str:
    """Return a readable title of a job, such as ``train glaucoma/ddp_2gpu seed1 (work/demo)``."""
    remaining = dict(wildcards)
    run = "/".join(remaining.pop(key) for key in ("study", "run") if key in remaining)
    return " ".join(part for part in (rule, run, *remaining.values(), f"({workdir})") if part)


def gres(cluster: Cluster, gpus: int) -> str:
    """Return SLURM's name of so many GPUs of a node."""
    return ":".join(["gpu", *([cluster.gpu_model] if cluster.gpu_model else []), str(gpus)])
