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
STUDY_JOBS = 12  # chapters of the report, reference and benchmarks, on average
VARIANT_JOBS = 1  # its datasheet


@dataclass(frozen=True)
class Machine:
    """A machine with GPUs of one kind and the cores of the configuration's node."""

    gpu: str  # kind of GPU, a key of ``cost.devices``
    gpus: int  # number of GPUs

    @classmethod
    def parse(cls, text: str) -> Machine:
        """Parse a machine such as "a100:4".

        Raises:
            MedscaleError: when the text has another form.
        """
        gpu, _, count = text.partition(":")
        if not gpu or not count.isdigit() or int(count) < 1:
            raise MedscaleError(
                f"{text!r} is not a machine; write a kind of cost.devices and a number of GPUs, "
                "such as a100:4"
            )
        return cls(gpu, int(count))


def on(config: Config, machine: Machine) -> Config:
    """Return the configuration with a machine's kind of GPU."""
    return config.model_copy(update={"cost": config.cost.model_copy(update={"gpu": machine.gpu})})


def studies(config: Config) -> pd.DataFrame:
    """Return the needs of each study that do not depend on the machine.

    Returns:
        One row for each study: ``study, images, runs, jobs, raw_gb, shards_gb, runs_gb, files``.
    """
    rows = []
    for name in _all_studies(config):
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
                "jobs": 2 * replicates
                + runs
                + 1
                + sets
                + (STUDY_JOBS if settings.variant_of is None else VARIANT_JOBS),
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

    Trained replicates of runs on GPUs count for the configured kind of GPU alone (``cost.gpu``).

    Returns:
        One row for each run: ``study, run, replicates, gpus, cpus, minutes`` (of a replicate),
        ``hours`` (device-hours of all replicates), ``energy_kwh, money, measured`` (whether from a
        trained replicate), ``fits`` (whether the machine has enough devices).
    """
    is_own, config, rows = machine.gpu == config.cost.gpu, on(config, machine), []
    share = max(1, config.node.cpus // machine.gpus)
    for name in _all_studies(config):
        for entry, run, numbers in sweep.trainings(config, name):
            plan = planning.plan(config, entry, run, 0)
            estimate = cost.estimate(config, plan, measured=is_own or plan.backend == "cpu")
            replicates = len(config.replicates_of(entry, numbers))
            gpus = plan.run.devices if plan.backend == "cuda" else 0
            cpus = min(gpus * share, config.node.cpus) if gpus else plan.run.devices
            rows.append(
                {
                    "study": entry,
                    "run": run,
                    "replicates": replicates,
                    "gpus": gpus,
                    "cpus": cpus,
                    "minutes": estimate.minutes,
                    "hours": replicates * estimate.device_hours,
                    "energy_kwh": replicates * estimate.energy_kwh,
                    "money": replicates * estimate.money,
                    "measured": estimate.measured,
                    "fits": gpus <= machine.gpus and cpus <= config.node.cpus,
                }
            )
    return pd.DataFrame(rows)


def totals(config: Config, machine: Machine) -> dict[str, float]:
    """Sum up all trainings that a machine can run, and the preparation of the data.

    Returns:
        Values by name:

        - ``gpu_hours, core_hours, energy_kwh, money``: sums over the trainings;
        - ``preparation_hours``: index and shards on all cores;
        - ``one_at_a_time_hours``: trainings one after another, as in the default profile, so that
          trainings do not disturb each other's times;
        - ``packed_hours``: as many trainings at a time as the devices allow;
        - ``replicates, measured, left_out``: numbers of replicates.
    """
    table = trainings(config, machine)
    fitting_runs = table[table["fits"]]
    replicates = fitting_runs.loc[
        fitting_runs.index.repeat(fitting_runs["replicates"]), ["gpus", "cpus", "minutes"]
    ]
    jobs = list(replicates.itertuples(index=False, name=None))
    stages = [cost.preparation(config, name, config.node.cpus) for name in _all_studies(config)]
    return {
        "gpu_hours": float(fitting_runs.loc[fitting_runs["gpus"] > 0, "hours"].sum()),
        "core_hours": float(fitting_runs.loc[fitting_runs["gpus"] == 0, "hours"].sum()),
        "energy_kwh": float(fitting_runs["energy_kwh"].sum()),
        "money": float(fitting_runs["money"].sum()),
        "preparation_hours": sum(minutes["index"] + minutes["shards"] for minutes in stages) / 60,
        "one_at_a_time_hours": sum(minutes for _, _, minutes in jobs) / 60,
        "packed_hours": makespan(jobs, machine.gpus, config.node.cpus) / 60,
        "replicates": float(len(jobs)),
        "measured": float(fitting_runs.loc[fitting_runs["measured"], "replicates"].sum()),
        "left_out": float(table.loc[~table["fits"], "replicates"].sum()),
    }


def makespan(jobs: Sequence[tuple[int, int, float]], gpus: int, cpus: int) -> float:
    """Return the minutes until all jobs end under list scheduling (Graham 1969).

    Jobs start in descending order of their length, as soon as their devices are free.

    Args:
        jobs: GPUs, cores and minutes of each job; no job needs more than the machine has.
        gpus: GPUs of the machine.
        cpus: cores of the machine.
    """
    queue = sorted(jobs, key=lambda job: -job[2])
    active: list[tuple[float, int, int]] = []
    minute = 0.0
    while queue:
        for job in [*queue]:
            if job[0] <= gpus and job[1] <= cpus:
                queue.remove(job)
                gpus, cpus = gpus - job[0], cpus - job[1]
                heapq.heappush(active, (minute + job[2], job[0], job[1]))
        if queue:
            minute, more_gpus, more_cpus = heapq.heappop(active)
            gpus, cpus = gpus + more_gpus, cpus + more_cpus
    return max((end for end, _, _ in active), default=minute)


def _all_studies(config: Config) -> list[str]:
    return [*config.active, *(name for study in config.active for name in config.variants(study))]
