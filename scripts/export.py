"""Export a study's results to ONNX, and compare them with PyTorch: export.csv and export.json."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from pathlib import Path

import typer

from medscale.base import log
from medscale.config.benchmarks import Export
from medscale.measure.exporting import WAYS, measure_export
from medscale.measure.record import Marks, write


def main(
    results: list[Path],
    shards: Path = typer.Option(...),
    settings: str = typer.Option(..., help="the study's benchmarks.export section as JSON"),
    marks: str = typer.Option(..., help="synthetic, stand_in and scale as JSON"),
    files: Path = typer.Option(..., help="folder of the exported files"),
    out: Path = typer.Option(..., help="folder of export.csv and export.json"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    benchmark = Export.model_validate_json(settings)
    rows, missing = measure_export(results, shards, benchmark, files)
    record, limits = benchmark.model_dump(), Marks.model_validate_json(marks)
    write(out, "export", rows, record, limits, WAYS, missing)


if __name__ == "__main__":
    run_script(main)
