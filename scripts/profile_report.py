"""Figures, tables and facts of a study's profiled runs."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.profiling.make import write_profiles


def main(
    profiled: list[Path],
    figures: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_profiles(profiled, figures, tables)
    log.info("profiles of %d runs: figures in %s, tables in %s", len(profiled), figures, tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
