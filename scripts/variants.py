"""A study beside its variants: one figure and one table."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.variants.make import write_variants


def main(
    results: list[Path],
    study: str = typer.Option(...),
    config: Path = typer.Option(...),
    figures: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_variants(study, config, results, figures, tables)
    log.info("%s: variants in %s and %s", study, figures, tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
