"""Continues an interrupted training on fewer devices than the run's name says."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256
from medscale.base.log import log
from medscale.engine.parallel.rendezvous import meeting_point
from medscale.engine.plan import MANIFEST, PROGRESS, RunPlan


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
    history = _history(out / "checkpoints")
    if history is None:
        return plan
    present, devices = plan.procs_per_node, plan.run.devices
    if present % plan.run.stages:
        setting = f"--config 'node={{{plan.run.device}s: {devices}}}'"
        raise MedscaleError(
            f"{plan.run.name} is a pipeline of {plan.run.stages} devices and cannot go on with "
            f"{present}: continue it on {devices} devices ({setting}), or train another run, such "
            "as one of DDP"
        )
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


def _history(folder: Path) -> list[dict[str, Any]] | None:
    """Return the history of the newest checkpoint that is not damaged; None without one.

    The launcher does not import PyTorch, so it checks the recorded progress alone;
    ``Checkpoints.latest`` checks all files.
    """
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        with suppress(MedscaleError, OSError, KeyError, TypeError):
            manifest, file = read_json(checkpoint / MANIFEST), checkpoint / PROGRESS
            if manifest["files"][PROGRESS] == sha256(file):
                return list(read_json(file)["history"])
    return None
