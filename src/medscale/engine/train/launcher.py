"""The command that trains one replicate, for the scripts: start its processes and wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from medscale.base.errors import Stopped
from medscale.base.files import read_json
from medscale.base.log import log, set_up
from medscale.engine.parallel.failures import STOPPED
from medscale.engine.parallel.launch import Reserve, launch
from medscale.engine.plan import RunPlan


def command(worker: str, reserve: Reserve) -> Callable[[Path, Path, Path, Path, str], None]:
    """Return the command line of a script that trains replicates.

    Args:
        worker: module of the process of one rank.
        reserve: hold GPUs of this machine for a run.
    """

    def main(
        spec: Path = typer.Option(...),
        shards: Path = typer.Option(...),
        out: Path = typer.Option(...),
        log_file: Path = typer.Option(..., "--log"),
        rendezvous: str = typer.Option(
            None, help="host:port where the nodes of a run over several nodes meet"
        ),
    ) -> None:
        set_up(log_file)
        plan = RunPlan.model_validate(read_json(spec))
        options = {"--spec": spec, "--shards": shards, "--out": out, "--log": log_file}
        try:
            launch(plan, worker, options, reserve, rendezvous)
        except Stopped as stopped:
            log.warning("%s", stopped)
            raise SystemExit(STOPPED) from None

    return main
