"""The datasheet of a study's images, and its table in the paper."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.datasheet import write_datasheet
from medscale.report.study import read_config


def main(
    study: str = typer.Option(...),
    config: Path = typer.Option(...),
    data: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_datasheet(study, read_config(config), data, tables)
    log.info("%s: datasheet in %s and %s", study, data, tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
