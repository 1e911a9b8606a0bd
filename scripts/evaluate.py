"""Gather a run's replicates into its result folder: metrics with intervals, figures, model card."""

from pathlib import Path

import typer

from medscale.data.shards import Shards
from medscale.errors import tell_user
from medscale.evaluate import evaluate, one_line
from medscale.evaluate.detection import localize
from medscale.log import log, set_up
from medscale.report.detection import write_detection
from medscale.report.result import write_result


def main(
    replicates: list[Path],
    index: Path = typer.Option(...),
    shards: Path = typer.Option(None, help="a detection run's images, to draw boxes on"),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    if shards is None:
        summary = write_result(evaluate(replicates, index), out)
    else:
        summary = write_detection(localize(replicates, index), Shards.open(shards), out)
    log.info("%s", one_line(summary))


if __name__ == "__main__":
    tell_user(typer.run)(main)
