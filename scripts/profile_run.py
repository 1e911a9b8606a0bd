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
    run_plan, spec = RunPlan.model_validate_json(plan), out / "spec.json"
    if run_plan.detect is not None:
        require()
    write_json(spec, run_plan.model_dump(mode="json"))
    options = {
        "--spec": spec,
        "--shards": shards,
        "--out": out,
        "--settings": settings,
        "--log": log_file,
    }
    arguments = [str(part) for option in options.items() for part in option]
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no warnings of the tracer without a GPU
    try:
        launch(run_plan, "medscale.measure.profiling.worker", arguments, cards.reserve)
    except Stopped:
        raise MedscaleError(
            f"profiling {run_plan.run.name} was stopped; the same command begins again"
        ) from None
    shutil.rmtree(out / "checkpoints")  # the lock, and the cut of a pipeline


if __name__ == "__main__":
    tell_user(typer.run)(main)
