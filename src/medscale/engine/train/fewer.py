"""A training that was interrupted goes on with fewer devices than its name has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.base.log import log
from medscale.engine.parallel.rendezvous import meeting_point
from medscale.engine.plan import RunPlan


def plan_here(plan: RunPlan, out: Path) -> RunPlan:
    """Return the plan that this node carries out alone, if a training on more was interrupted.

    That is where a node has fewer devices than the run's name, no further node takes part, and
    there is a checkpoint. Otherwise the plan is returned as it is.

    The result keeps its name, since its times are those of the epochs on all devices. Therefore
    one such epoch must be complete. Raises MedscaleError, saying what to type, if none is, or the
    devices cannot be divided into replicas.

    Args:
        plan: of the run; ``procs_per_node`` is the number of devices here.
        out: the run folder.
    """
    if plan.nodes == 1 or meeting_point(os.environ) is not None:
        return plan
    checkpoints = sorted((out / "checkpoints").glob("step-*/progress.json"))
    if not checkpoints:
        return plan
    here, named = plan.procs_per_node, plan.run.devices
    if here % plan.run.stages:
        setting = f"--config node={{{plan.run.device}s: {named}}}"
        raise MedscaleError(
            f"{plan.run.name} is a pipeline of {plan.run.stages} devices and cannot go on with "
            f"{here}: continue it on {named} devices ({setting}), or train another run, such as "
            "one of DDP"
        )
    if not own_epochs(read_json(checkpoints[-1])["history"], named):
        fewer = plan.run.model_copy(update={"devices": here}).name
        raise MedscaleError(
            f"{plan.run.name} was interrupted before an epoch was complete, so nothing was "
            f"measured on {named} devices: train {fewer} instead, or go on with {named} devices"
        )
    log.warning(
        "%s goes on with %d of its %d devices; times are those of the epochs on all of them",
        plan.run.name,
        here,
        named,
    )
    return plan.on_fewer(here)


def own_epochs(history: Sequence[dict[str, Any]], devices: int) -> list[dict[str, Any]]:
    """Return the rows of the epochs that ran on all devices of a run's name.

    ``history``: rows of the history of epochs.
    """
    return [row for row in history if row["processes"] == devices]
