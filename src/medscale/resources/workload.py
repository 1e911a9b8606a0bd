"""The work of the planned studies on a machine: files, jobs, hours, money, and a schedule."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config import planning, sweep
from medscale.config.configuration import Config
from medscale.data.limits import chunk_size
from medscale.resources import cost

RUN_FILES = 7  # spec, history, timing, predictions, model, environment, log
RESULT_FILES = 10
STUDY_FILES = 60  # figures, tables and logs


@dataclass(frozen=True)
class Machine:
    """A machine with GPUs of one kind and the cores of the configuration's node."""

    gpu: str
    gpus: int

    @classmethod
    def parse(cls, text: str) -> Machine:
        """Parse a machine such as "a100:4"; MedscaleError for another form."""
        gpu, _, count = text.partition(":")
        if not gpu or not count.isdigit() or int(count) < 1:
            raise MedscaleError(
                f"{text!r} is no machine; write a kind of cost.devices and a number, such as a100:4"
            )
        return cls(gpu, int(count))


def on(config: Config, machine: Machine) -> Config:
    """Return the configuration with a machine's kind of GPU."""
    return config.model_copy(update={"cost": config.cost.model_copy(update={"gpu": machine.gpu})})


def studies(config: Config) -> pd.DataFrame:
    """Return the needs of each study on any machine.

    Returns:
        ``study, images, runs, jobs, raw_gb, shards_gb, runs_gb, files``, a row for each study.
    """
    rows = []
    for name in _all(config):
        settings, disk = config.study(name), cost.storage(config, name)
        total = sum(cost.images(config, name).values())
        chunks = math.ceil(total / (settings.preprocess.chunk or chunk_size(total)))
        sets = 2 if settings.detect is not None and settings.detection_runs else 1
        runs = len(settings.runs)
        replicates = sum(
            len(config.replicates_of(entry, seeds))
            for entry, _, seeds in sweep.trainings(config, name)
        )
        raw_files = total if config.owner(name) == name else 0
        rows.append(
            {
                "study": name,
                "images": total,
                "runs": runs,
                "jobs": 2 * replicates + runs + 1 + sets + 3 * (settings.variant_of is None),
                "raw_gb": disk["raw"] / 1000,
                "shards_gb": disk["shards"] / 1000,
                "runs_gb": (disk["runs"] + disk["checkpoints"]) / 1000,
                "files": raw_files
                + sets * (2 * chunks + 2)
                + replicates * RUN_FILES
                + runs * RESULT_FILES
                + STUDY_FILES,
            }
        )
    return pd.DataFrame(rows)


def trainings(config: Config, machine: Machine) -> pd.DataFrame:
    """Estimate every configured run, and every point of a sweep, on a machine.

    Returns:
        A row for each run: ``study, run, replicates, gpus, cpus, minutes`` (of a replicate),
        ``hours`` (device-hours of all replicates), ``energy_kwh, money, measured, fits`` (whether
        the machine has enough devices).
    """
    config, rows = on(config, machine), []
    share = max(1, config.node.cpus // machine.gpus)
    for name in _all(config):
        for entry, run, numbers in sweep.trainings(config, name):
            plan = planning.plan(config, entry, run, 0)
            estimate = cost.estimate(config, plan)
            each = len(config.replicates_of(entry, numbers))
            gpus = plan.run.devices if plan.backend == "cuda" else 0
            cpus = min(gpus * share, config.node.cpus) if gpus else plan.run.devices
            rows.append(
                {
                    "study": entry,
                    "run": run,
                    "replicates": each,
                    "gpus": gpus,
                    "cpus": cpus,
                    "minutes": estimate.minutes,
                    "hours": each * estimate.device_hours,
                    "energy_kwh": each * estimate.energy_kwh,
                    "money": each * estimate.money,
                    "measured": estimate.measured,
                    "fits": gpus <= machine.gpus and cpus <= config.node.cpus,
                }
            )
    return pd.DataFrame(rows)


def totals(config: Config, machine: Machine) -> dict[str, float]:
    """Sum up all trainings that a machine can run, and the preparation of the data.

    Returns:
        ``gpu_hours, core_hours, energy_kwh, money`` (of the trainings), ``preparation_hours``
        (index and shards on all cores), ``one_at_a_time_hours`` (trainings one after another, as in
        the default profile, which keeps measured times undisturbed), ``packed_hours`` (as many at a
        time as there are devices), ``replicates, measured, left_out`` (numbers of replicates).
    """
    table = trainings(config, machine)
    fitting = table[table["fits"]]
    repeated = fitting.loc[fitting.index.repeat(fitting["replicates"]), ["gpus", "cpus", "minutes"]]
    jobs = list(repeated.itertuples(index=False, name=None))
    stages = [cost.preparation(config, name, config.node.cpus) for name in _all(config)]
    return {
        "gpu_hours": float(fitting.loc[fitting["gpus"] > 0, "hours"].sum()),
        "core_hours": float(fitting.loc[fitting["gpus"] == 0, "hours"].sum()),
        "energy_kwh": float(fitting["energy_kwh"].sum()),
        "money": float(fitting["money"].sum()),
        "preparation_hours": sum(minutes["index"] + minutes["shards"] for minutes in stages) / 60,
        "one_at_a_time_hours": sum(minutes for _, _, minutes in jobs) / 60,
        "packed_hours": makespan(jobs, machine.gpus, config.node.cpus) / 60,
        "replicates": float(len(jobs)),
        "measured": float(fitting.loc[fitting["measured"], "replicates"].sum()),
        "left_out": float(table.loc[~table["fits"], "replicates"].sum()),
    }


def makespan(jobs: Sequence[tuple[int, int, float]], gpus: int, cpus: int) -> float:
    """Return the minutes until all jobs end under list scheduling (Graham 1969).

    Jobs start in the order of their length, the longest first, as soon as their devices are free.

    Args:
        jobs: GPUs, cores and minutes of each job; no job needs more than the machine has.
        gpus: GPUs of the machine.
        cpus: cores of the machine.
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


def _all(config: Config) -> list[str]:
    return [*config.active, *(name for study in config.active for name in config.variants(study))]
