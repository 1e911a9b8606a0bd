"""Evaluate a trained run on images of another origin: metrics, shift, figures, predictions."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import json
from pathlib import Path

import typer

from medscale.base.files import read_json
from medscale.base.log import log, set_up
from medscale.config.sections import Evaluate
from medscale.serve.external import ExternalSet, evaluate_external


def main(
    result: Path,
    index: Path = typer.Option(..., help="index of the external images"),
    raw: Path = typer.Option(..., help="folder of the external images"),
    audit: Path = typer.Option(..., help="audit.json of the external images, for its notes"),
    training: Path = typer.Option(..., help="index of the study that the run was trained on"),
    title: str = typer.Option(..., help="name of the external set, as JSON"),
    synthetic: bool = typer.Option(False, help="the external images are generated"),
    settings: str = typer.Option(..., help="the section evaluate, as JSON"),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    set_up(log_file)
    images = ExternalSet(json.loads(title), index, raw, read_json(audit)["notes"], synthetic)
    summary = evaluate_external(
        result, images, out, Evaluate.model_validate_json(settings), training
    )
    log.info("%s images of %s", summary["counts"]["test"]["images"], summary["title"])


if __name__ == "__main__":
    run_script(main)
