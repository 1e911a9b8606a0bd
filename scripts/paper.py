"""Build the paper from its templates and the studies' facts."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from pathlib import Path

import typer

from medscale.base.log import log, set_up
from medscale.report.paper.build import build


def main(
    facts: list[Path],
    shared: list[Path] = typer.Option(..., help="facts about all studies: provenance, synthesis"),
    text: Path = typer.Option(..., help="paper.tex.j2, beside references.bib and sections/"),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    build(text.parent, facts, shared, Path("."), out)
    log.info("%s", out)


if __name__ == "__main__":
    run_script(main)
