"""The process that the launcher starts for each device to profile a run."""

import logging
import os
import sys
from functools import partial
from pathlib import Path

import typer

from medscale.base.files import read_json
from medscale.config.benchmarks import Profile
from medscale.engine.plan import RunPlan
from medscale.engine.train.task import Classification
from medscale.engine.train.worker import run_rank
from medscale.measure.profiling.record import profile_run


def main(
    spec: Path = typer.Option(...),
    shards: Path = typer.Option(...),
    out: Path = typer.Option(...),
    settings: str = typer.Option(..., help="the study's profile section as JSON"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    """Profile the plan in the file ``spec`` on this rank."""
    task: type = Classification
    if RunPlan.model_validate(read_json(spec)).detect is not None:
        from medscale.engine.detect.task import Detection as task
    profile = partial(profile_run, settings=Profile.model_validate_json(settings))
    run_rank(spec, shards, out, log_file, task, profile)
    # All files are written. PyTorch's profiler sometimes corrupts the heap while the interpreter
    # shuts down (once in eight runs of two ranks), so the process ends without shutting down.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    typer.run(main)
