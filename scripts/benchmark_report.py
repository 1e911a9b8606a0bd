"""Figure, table and facts of one of a study's benchmarks, from what was measured."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.benchmarks.make import write_benchmark


def main(
    name: str,
    study: str = typer.Option(...),
    measured: Path = typer.Option(..., help="folder with <name>.csv and <name>.json"),
    reported: Path = typer.Option(...),
    figures: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_benchmark(name, study, measured, reported, figures, tables)
    log.info("%s of %s: figure in %s, table in %s", name, study, figures, tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
