"""Measure ways to load a study's training batches: loading.csv and loading.json."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from pathlib import Path

import typer

from medscale.base import log
from medscale.config.benchmarks import Loading
from medscale.data.settings import Preprocess
from medscale.engine.plan import Augment
from medscale.measure.loading import WAYS, measure_loading
from medscale.measure.record import Marks, write


def main(
    index: Path = typer.Option(...),
    raw: Path = typer.Option(..., help="the raw folder that the index's paths are relative to"),
    shards: Path = typer.Option(...),
    preprocess: str = typer.Option(..., help="the study's preprocess section as JSON"),
    augment: str = typer.Option(..., help="the study's augment section as JSON"),
    settings: str = typer.Option(..., help="the study's benchmarks.loading section as JSON"),
    marks: str = typer.Option(..., help="synthetic, stand_in and scale as JSON"),
    out: Path = typer.Option(..., help="folder of loading.csv and loading.json"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    recipe = Preprocess.model_validate_json(preprocess)
    changes = Augment.model_validate_json(augment)
    benchmark = Loading.model_validate_json(settings)
    rows = measure_loading(index, raw, shards, recipe, changes, benchmark)
    record = {
        "preprocess": recipe.model_dump(mode="json"),
        "augment": changes.model_dump(mode="json"),
    }
    record |= benchmark.model_dump()
    write(out, "loading", rows, record, Marks.model_validate_json(marks), WAYS)


if __name__ == "__main__":
    run_script(main)
