"""Gather a run's replicates into its result folder: metrics with intervals, figures, model card."""

from pathlib import Path

import typer

from medscale.errors import tell_user
from medscale.evaluate import evaluate, one_line
from medscale.log import log, set_up
from medscale.report.result import write_result


def main(
    replicates: list[Path],
    index: Path = typer.Option(...),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    log.info("%s", one_line(write_result(evaluate(replicates, index), out)))


if __name__ == "__main__":
    tell_user(typer.run)(main)
