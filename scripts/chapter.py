"""Make one chapter of a report: its figures, tables, documents and facts."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import json
from pathlib import Path

import typer

from medscale.base.log import log, set_up
from medscale.report.writer import write_chapter


def main(
    name: str = typer.Argument(..., help="folder below src/medscale/report"),
    study: str = typer.Option("", help="empty for a chapter about all studies"),
    arguments: str = typer.Option(..., help="inputs and settings of the chapter, as JSON"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_chapter(name, study, json.loads(arguments))
    log.info("chapter %s %s", name, f"of {study}" if study else "of all studies")


if __name__ == "__main__":
    run_script(main)
