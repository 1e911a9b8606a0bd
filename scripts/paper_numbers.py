"""All studies' numbers as LaTeX macros."""

from pathlib import Path

import typer

from medscale.base.errors import tell_user
from medscale.base.log import set_up
from medscale.report.numbers import write_numbers


def main(
    facts: list[Path],
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    write_numbers(facts, out)


if __name__ == "__main__":
    tell_user(typer.run)(main)
