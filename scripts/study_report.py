"""A study's figures and tables, and the facts that the paper says of it."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.overview.make import write_report


def main(
    results: list[Path],
    study: str = typer.Option(...),
    config: Path = typer.Option(...),
    data: Path = typer.Option(...),
    reported: Path = typer.Option(...),
    figures: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_report(study, config, data, results, reported, figures, tables)
    log.info("%s: figures in %s, tables in %s", study, figures, tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
