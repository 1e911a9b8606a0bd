"""Measure preprocessing under Dask by number of workers: enhance.csv and enhance.json."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from pathlib import Path

import typer

from medscale.base import log
from medscale.config.benchmarks import Enhance
from medscale.data.settings import Preprocess
from medscale.measure.enhance import measure_enhance
from medscale.measure.record import Marks, write


def main(
    index: Path = typer.Option(...),
    raw: Path = typer.Option(..., help="the raw folder that the index's paths are relative to"),
    preprocess: str = typer.Option(..., help="the study's preprocess section as JSON"),
    settings: str = typer.Option(..., help="the study's benchmarks.enhance section as JSON"),
    marks: str = typer.Option(..., help="synthetic, stand_in and scale as JSON"),
    out: Path = typer.Option(..., help="folder of enhance.csv and enhance.json"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    recipe = Preprocess.model_validate_json(preprocess)
    benchmark = Enhance.model_validate_json(settings)
    rows = measure_enhance(index, raw, recipe, benchmark, out)
    record = {"preprocess": recipe.model_dump(mode="json"), **benchmark.model_dump()}
    write(out, "enhance", rows, record, Marks.model_validate_json(marks))


if __name__ == "__main__":
    run_script(main)
