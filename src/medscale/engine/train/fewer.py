"""Continues an interrupted training on fewer devices than the run's name says."""

from __future__ import annotations

import os
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.base.log import log
from medscale.engine.parallel.rendezvous import meeting_point
from medscale.engine.plan import RunPlan


def plan_here(plan: RunPlan, out: Path) -> RunPlan:
    """Return the plan for this node's devices alone, if they continue an interrupted training.

    They do so if the node has fewer devices than the run's name says, no further node takes part,
    and there is a checkpoint. Otherwise the plan is returned as it is.

    The result keeps its name, since its times are those of the epochs on all devices. At least one
    such epoch must therefore be complete. Raises MedscaleError if none is, or if the devices cannot
    be divided into replicas; the message says how the training can be continued.

    Args:
        plan: of the run; ``procs_per_node`` is the number of devices here.
        out: the run folder.
    """
    if plan.nodes == 1 or meeting_point(os.environ) is not None:
        return plan
    checkpoints = sorted((out / "checkpoints").glob("step-*/progress.json"))
    if not checkpoints:
        return plan
    present, devices = plan.procs_per_node, plan.run.devices
    if present % plan.run.stages:
        setting = f"--config 'node={{{plan.run.device}s: {devices}}}'"
        raise MedscaleError(
            f"{plan.run.name} is a pipeline of {plan.run.stages} devices and cannot go on with "
            f"{present}: continue it on {devices} devices ({setting}), or train another run, such "
            "as one of DDP"
        )
    history = read_json(checkpoints[-1])["history"]
    if all(row["processes"] != devices for row in history):
        fewer = plan.run.model_copy(update={"devices": present}).name
        raise MedscaleError(
            f"{plan.run.name} was interrupted before an epoch was complete, so nothing was "
            f"measured on {devices} devices: train {fewer} instead, or go on with {devices} devices"
        )
    log.warning(
        "%s goes on with %d of its %d devices; times are those of the epochs on all of them",
        plan.run.name,
        present,
        devices,
    )
    return plan.on_fewer(present)
