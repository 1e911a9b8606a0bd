"""The time of the trainings that a claim needs, by the cost model."""

from __future__ import annotations

from pathlib import Path

from medscale.config import planning
from medscale.config.configuration import Config
from medscale.report.claims.planned import Planned
from medscale.resources import cost


def trainings(claim: Planned) -> list[tuple[str, str]]:
    """Return study and run of each training that a claim needs."""
    parts = (Path(target).parts for target in claim.targets)
    return [(part[1], part[2]) for part in parts if part[0] == "results"]


def minutes(config: Config, runs: list[tuple[str, str]]) -> float:
    """Return the minutes of all replicates of some runs, one after another.

    Raises MedscaleError where the configuration does not describe the kind of device.
    """
    return sum(
        len(config.replicates_of(study))
        * cost.estimate(config, planning.plan(config, study, run, 0)).minutes
        for study, run in runs
        if study in config.studies
    )
