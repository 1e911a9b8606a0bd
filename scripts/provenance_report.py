"""What made the study: every replicate, machines and code, as tables and as facts for the paper."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.overview.make import read_config
from medscale.report.provenance.make import write_provenance


def main(
    results: list[Path],
    config: Path = typer.Option(...),
    tables: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_provenance(results, read_config(config).titles, tables)
    log.info("%d results: tables in %s", len(results), tables)


if __name__ == "__main__":
    tell_user(typer.run)(main)
