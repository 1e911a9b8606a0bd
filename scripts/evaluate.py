"""Gather a run's replicates into its result folder: metrics with intervals, figures, model card."""

from pathlib import Path

import typer

from medscale.config import Evaluate
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
    settings: str = typer.Option(..., help="the section evaluate, as JSON"),
    shards: Path = typer.Option(None, help="images, for Grad-CAM, or to draw a detection run's boxes on"),
    detect: bool = typer.Option(False, help="a detection run"),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    if detect:
        summary = write_detection(localize(replicates, index), Shards.open(shards), out)
    else:
        evaluation = evaluate(replicates, index, Evaluate.model_validate_json(settings))
        looked = None
        if shards is not None:
            from medscale.evaluate.gallery import gallery  # imports PyTorch, which the other results do without

            looked = gallery(evaluation.replicates[0], Shards.open(shards))
        summary = write_result(evaluation, out, looked)
    log.info("%s", one_line(summary))


if __name__ == "__main__":
    tell_user(typer.run)(main)
