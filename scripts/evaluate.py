"""Evaluate a run's replicates into its result folder: metrics, figures, model card, weights."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import json
from functools import partial
from pathlib import Path

import typer

from medscale.base.log import log, set_up
from medscale.config.sections import Evaluate
from medscale.data.shards import Shards
from medscale.evaluate.detection import localize
from medscale.evaluate.evaluation import evaluate
from medscale.evaluate.replicates import read
from medscale.evaluate.summary import one_line
from medscale.report.names import class_titles
from medscale.report.result.detection import write_detection
from medscale.report.result.folder import write_result
from medscale.serve import bundle


def main(
    replicates: list[Path],
    index: Path = typer.Option(...),
    settings: str = typer.Option(..., help="the section evaluate, as JSON"),
    shards: Path = typer.Option(..., help="shards that the replicates were trained on"),
    title: str = typer.Option("", help="name of the study, in words"),
    kind: str = typer.Option("", help="kind of its dataset"),
    titles: str = typer.Option("{}", help="titles of its classes by name, as JSON"),
    gradcam: bool = typer.Option(False, help="compute Grad-CAM for the first replicate"),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    images, runs = Shards.open(shards), [read(folder) for folder in replicates]
    by_class = json.loads(titles)
    usable = partial(bundle.put, runs, images, title=title, kind=kind, class_titles=by_class)
    if runs[0].plan.detect is None:
        evaluation = evaluate(replicates, index, Evaluate.model_validate_json(settings))
        heat_maps = None
        if gradcam:
            # Imports PyTorch, which the other results do not need.
            from medscale.evaluate.gallery import gallery

            first = evaluation.replicates[0]
            heat_maps = gallery(first, images.of_fold(first.plan.fold))
        with class_titles(by_class):
            summary = write_result(evaluation, out, heat_maps, usable)
    else:
        summary = write_detection(localize(replicates, index), images, out, usable)
    log.info("%s", one_line(summary))


if __name__ == "__main__":
    run_script(main)
