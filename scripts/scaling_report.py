"""Scaling analysis of a study: series, fitted laws and cost as figures and tables, and the facts the paper says."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.scaling.make import write_scaling


def main(
    results: list[Path],
    study: str = typer.Option(...),
    config: Path = typer.Option(...),
    runs: Path = typer.Option(..., help="runs/<study>, with each replicate's history"),
    reported: Path = typer.Option(...),
    figures: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_scaling(study, config, results, runs, reported, figures, tables)
    log.info("%s: scaling analysis in %s and %s", study, figures, tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
