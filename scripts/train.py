"""Train one replicate: start its processes through torchrun, wait for them, and say in one message how it ended."""

from pathlib import Path

import typer

from medscale.base.errors import Stopped, tell_user
from medscale.base.files import read_json
from medscale.base.log import log, set_up
from medscale.engine.detect import require
from medscale.engine.parallel.launch import STOPPED, launch
from medscale.engine.plan import RunPlan


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
    arguments = [
        "--spec",
        str(spec),
        "--shards",
        str(shards),
        "--out",
        str(out),
        "--log",
        str(log_file),
    ]
    plan, worker = RunPlan.model_validate(read_json(spec)), "medscale.engine.train.worker"
    if plan.detect is not None:
        require()
        worker = "medscale.engine.detect.worker"
    try:
        launch(plan, worker, arguments, rendezvous)
    except Stopped as stopped:
        log.warning("%s", stopped)
        raise SystemExit(STOPPED) from None


if __name__ == "__main__":
    tell_user(typer.run)(main)
