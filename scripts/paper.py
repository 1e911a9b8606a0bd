"""Build the paper from its text, the studies' facts and the numbers."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import log, set_up
from medscale.report.paper import build


def main(
    facts: list[Path],
    provenance: Path = typer.Option(..., help="provenance.json: what made the results"),
    text: Path = typer.Option(..., help="paper.tex, beside references.bib and sections/"),
    numbers: Path = typer.Option(...),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    build(text.parent, facts, provenance, numbers, Path("."), out)
    log.info("%s", out)


if __name__ == "__main__":
    tell_user(typer.run)(main)
