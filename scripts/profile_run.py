"""Profile one run: time and trace some of its training steps."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import os
import shutil
from pathlib import Path

import typer

from medscale.base.errors import MedscaleError, Stopped
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
    paths = {"--spec": spec, "--shards": shards, "--out": out, "--log": log_file}
    # Without it the tracer warns of GPUs that are missing.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # Without it PyTorch warns of memory that is older than the trace.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        worker = "medscale.measure.profiling.worker"
        launch(run_plan, worker, {**paths, "--settings": settings}, cards.reserve)
    except Stopped:
        raise MedscaleError(
            f"profiling {run_plan.run.name} was stopped; the same command begins again"
        ) from None
    shutil.rmtree(out / "checkpoints")  # it holds the lock, and the cut of a pipeline


if __name__ == "__main__":
    run_script(main)
