"""Profile one run: time and trace some of its training steps."""

import os
import shutil
from pathlib import Path

import typer

from medscale.base.errors import MedscaleError, Stopped, tell_user
from medscale.base.files import write_json
from medscale.base.log import set_up
from medscale.engine.detect.extra import require
from medscale.engine.parallel.launch import launch
from medscale.engine.plan import RunPlan
from medscale.resources import cards


def main(
    plan: str = typer.Option(..., help="the run's plan as JSON"),
    settings: str = typer.Option(..., help="the study's profile section as JSON"),
    shards: Path = typer.Option(...),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    wanted, spec = RunPlan.model_validate_json(plan), out / "spec.json"
    if wanted.detect is not None:
        require()
    write_json(spec, wanted.model_dump(mode="json"))
    arguments = [
        "--spec",
        spec,
        "--shards",
        shards,
        "--out",
        out,
        "--settings",
        settings,
        "--log",
        log_file,
    ]
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "99"
    )  # else the tracer tells of GPUs that it did not find
    try:
        worker = "medscale.measure.profiling.worker"
        launch(wanted, worker, [str(part) for part in arguments], cards.reserve)
    except Stopped:
        raise MedscaleError(
            f"profiling {wanted.run.name} was stopped; the same command begins again"
        ) from None
    shutil.rmtree(out / "checkpoints")  # the lock, and where a pipeline was cut


if __name__ == "__main__":
    tell_user(typer.run)(main)
