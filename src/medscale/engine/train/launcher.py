"""The command that trains one replicate, for the scripts: start its processes and wait."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import typer

from medscale.base.errors import MedscaleError, Stopped
from medscale.base.files import read_json, write_json
from medscale.base.log import log, set_up
from medscale.base.scratch import scratch
from medscale.data.shards import Shards
from medscale.engine.parallel.failures import LOSS_NOT_FINITE, STOPPED
from medscale.engine.parallel.launch import Reserve, launch
from medscale.engine.plan import RunPlan
from medscale.engine.train.fewer import plan_here

SCRATCH = "medscale-plan-"


def command(
    worker: str, reserve: Reserve, check: Callable[[], None] | None = None
) -> Callable[[Path, Path, Path, Path, str, int], None]:
    """Return the command line of a script that trains replicates.

    Args:
        worker: module of the process of one rank.
        reserve: hold GPUs of this machine for a run.
        check: called first; raises MedscaleError where the worker lacks a package. None: no check.
    """

    def main(
        spec: Path = typer.Option(...),
        shards: Path = typer.Option(...),
        out: Path = typer.Option(...),
        log_file: Path = typer.Option(..., "--log"),
        rendezvous: str = typer.Option(
            None, help="host:port where the nodes of a run over several nodes meet"
        ),
        node: int = typer.Option(None, help="number of this node of several, from 0"),
    ) -> None:
        if check is not None:
            check()
        set_up(log_file)
        plan = RunPlan.model_validate(read_json(spec))
        options = {"--spec": spec, "--shards": shards, "--out": out, "--log": log_file}
        # Read once a run and node: seconds a gigabyte, before any GPU is held.
        shard_set = Shards.open(shards)
        shard_set.verify(out / "checkpoints" / f"verified-{socket.gethostname()}.json")
        if rendezvous is None:
            plan = plan_here(plan, out)
        try:
            with scratch(SCRATCH) as folder:
                write_json(folder / "spec.json", plan.model_dump(mode="json"))
                options["--spec"] = folder / "spec.json"
                launch(plan, worker, options, reserve, rendezvous, node)
        except Stopped as stopped:
            log.warning("%s", stopped)
            raise SystemExit(STOPPED) from None
        except MedscaleError as error:
            if LOSS_NOT_FINITE in str(error):
                _name_damage(shard_set, error)
            raise

    return main


def _name_damage(shards: Shards, error: MedscaleError) -> None:
    """Raise an error that names damaged shards as the cause, if reading them again finds any."""
    try:
        shards.verify()
    except MedscaleError as damage:
        raise MedscaleError(f"{error}. The cause may be this: {damage}") from None
