"""Train a run in each number format: formats.csv and formats.json."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import shutil
from pathlib import Path

import typer

from medscale.base.errors import MedscaleError, Stopped
from medscale.base.log import set_up
from medscale.config.benchmarks import Formats
from medscale.data.shards import Shards
from medscale.engine.parallel.launch import launch
from medscale.engine.plan import RunPlan
from medscale.measure.formats import WAYS, measure_formats
from medscale.measure.record import Marks, write
from medscale.resources import cards


def main(
    plan: str = typer.Option(..., help="the run's plan as JSON"),
    seeds: list[int] = typer.Option(..., "--seed", help="of a replicate; several are allowed"),
    settings: str = typer.Option(..., help="the section benchmarks.formats as JSON"),
    shards: Path = typer.Option(...),
    marks: str = typer.Option(..., help="synthetic, stand_in and scale as JSON"),
    out: Path = typer.Option(..., help="folder of formats.csv and formats.json"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)

    def train(replicate: RunPlan, folder: Path) -> None:
        options = {"--spec": folder / "spec.json", "--shards": shards, "--out": folder}
        try:
            worker = "medscale.engine.train.worker"
            launch(replicate, worker, options | {"--log": log_file}, cards.reserve)
        except Stopped:
            raise MedscaleError(
                "the benchmark of number formats was stopped; the same command continues it"
            ) from None

    benchmark, work = Formats.model_validate_json(settings), out / ".formats"
    run = RunPlan.model_validate_json(plan)
    digest = str(Shards.open(shards).meta["digest"])
    rows, missing = measure_formats(run, seeds, benchmark, digest, work, train)
    record = benchmark.model_dump() | {"seeds": seeds}
    run_marks = Marks.model_validate_json(marks).model_copy(update={"stand_in": run.stand_in})
    write(out, "formats", rows, record, run_marks, WAYS, missing)
    shutil.rmtree(work)


if __name__ == "__main__":
    run_script(main)
