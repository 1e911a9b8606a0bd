"""Measure the speed of a study's exported results: inference.csv and inference.json."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from pathlib import Path

import typer

from medscale.base import log
from medscale.config.benchmarks import Latency
from medscale.measure.inference import WAYS, measure_inference
from medscale.measure.record import Marks, write


def main(
    results: list[Path],
    files: Path = typer.Option(..., help="folder of the exported files"),
    index: Path = typer.Option(...),
    raw: Path = typer.Option(..., help="the raw folder that the index's paths are relative to"),
    settings: str = typer.Option(..., help="the study's benchmarks.inference section as JSON"),
    marks: str = typer.Option(..., help="synthetic, stand_in and scale as JSON"),
    out: Path = typer.Option(..., help="folder of inference.csv and inference.json"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    benchmark = Latency.model_validate_json(settings)
    rows, missing = measure_inference(results, files, index, raw, benchmark)
    record, limits = benchmark.model_dump(), Marks.model_validate_json(marks)
    write(out, "inference", rows, record, limits, WAYS, missing)


if __name__ == "__main__":
    run_script(main)
