"""The plan of a run, refused before any job starts if no training could carry it out."""

from __future__ import annotations

from medscale.base.errors import MedscaleError
from medscale.config import planning
from medscale.config.configuration import Config
from medscale.engine import conflicts
from medscale.engine.models.names import check_own
from medscale.engine.plan import RunPlan
from medscale.resources import compute


def plan(config: Config, study: str, run: str, seed: int, fold: int | None = None) -> RunPlan:
    """Return the plan of a replicate; arguments and errors are those of ``planning.plan``.

    Raises MedscaleError also for settings that contradict each other, and for options that a
    network of this package does not have. Those of timm's networks need PyTorch: ``medscale check``
    and the training itself examine them.
    """
    result = planning.plan(config, study, run, seed, fold)
    conflicts.refuse(result)
    try:
        check_own(result.model, compute.pixels(config, result))
    except MedscaleError as error:
        name = config.data_of(study)  # of a point of a sweep, the study
        raise MedscaleError(f"network of {name}: {error}") from None
    return result
