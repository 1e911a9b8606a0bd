"""The figure and the table of a study's detection runs."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.data.shards import Shards
from medscale.report.detection.make import write_detection_report


def main(
    results: list[Path],
    shards: Path = typer.Option(...),
    figures: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_detection_report(results, Shards.open(shards), figures, tables)
    log.info("detection: figure in %s, table in %s", figures, tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
