"""Export a study's results to ONNX and hold each file against PyTorch: the files, export.csv and export.json."""

from pathlib import Path

import typer

from medscale.base import log
from medscale.base.errors import tell_user
from medscale.config.sections import Export
from medscale.measure.exporting import FORMATS, measure_export
from medscale.measure.record import Marks, write


def main(
    results: list[Path],
    shards: Path = typer.Option(...),
    settings: str = typer.Option(..., help="the study's benchmarks.export section as JSON"),
    marks: str = typer.Option(..., help="synthetic, stand_in and scale as JSON"),
    files: Path = typer.Option(..., help="folder of the exported files"),
    out: Path = typer.Option(..., help="folder of what is measured"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    wanted = Export.model_validate_json(settings)
    rows, missing = measure_export(results, shards, wanted, files)
    ways = {name: {"label": label, "does": does} for name, (label, does) in FORMATS.items()}
    write(
        out,
        "export",
        rows,
        wanted.model_dump(),
        Marks.model_validate_json(marks),
        ways=ways,
        missing=missing,
    )


if __name__ == "__main__":
    tell_user(typer.run)(main)
