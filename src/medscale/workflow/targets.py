"""Targets that a person types: names of studies, runs and benchmarks are checked before planning.

Without the check Snakemake would say that no rule makes the file, and not which part is wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.config import planning
from medscale.config.configuration import Config
from medscale.config.sections import Benchmarks
from medscale.engine.models.names import check_name
from medscale.engine.plan import is_detector
from medscale.engine.run import RunSpec
from medscale.report.chapters import refuse_absent

RUN_TARGET = re.compile(r"(?:\./)?(results|runs|profiled)/([^/]+)/([^/]+)(/.*)?")
EXTERNAL_TARGET = re.compile(r"(?:\./)?external/([^/]+)/([^/]+)(/.*)?")
STUDY_TARGET = re.compile(r"(?:\./)?(data/raw|data|measured|figures|tables)/([^/]+)/(.+)")


def check_target(config: Config, target: str) -> None:
    """Refuse a target whose study, run or benchmark does not exist.

    Raises MedscaleError, naming the part of the target that is wrong and what is allowed.
    """
    if match := RUN_TARGET.fullmatch(target):
        planning.plan(config, match[2], match[3], config.seeds[0])
        check_model(RunSpec.parse(match[3]).model)
    elif match := EXTERNAL_TARGET.fullmatch(target):
        owner = config.study(match[1]).external_of
        if owner is None:
            raise MedscaleError(
                f"{target}: {match[1]} is no external set; give a study `external` in config.yaml"
            )
        planning.plan(config, owner, match[2], config.seeds[0])
    elif match := STUDY_TARGET.fullmatch(target):
        folder, study, name = match[1], match[2], Path(match[3]).stem
        benchmarks = config.study(study).benchmarks
        if (
            folder == "measured"
            and name in Benchmarks.model_fields
            and getattr(benchmarks, name) is None
        ):
            raise MedscaleError(
                f"{target}: the study {study} measures no {name}; "
                f"give it a section benchmarks.{name} in config.yaml"
            )
        if folder in ("figures", "tables"):
            refuse_absent(config, study, folder, name)


def check_model(name: str | None) -> None:
    """Refuse the name of a network that no registry has.

    For a detector nothing is checked here: the plan knows whether the study has detection, and
    ``medscale check`` and the run itself whether ultralytics is installed, which may differ between
    this machine and the jobs' machines. Raises MedscaleError with names that are close.
    """
    if name is not None and not is_detector(name):
        check_name(name)
