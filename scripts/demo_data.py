"""Write synthetic raw images in the layout of a dataset kind; demo.json is written last."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import json
from pathlib import Path

import typer

from medscale.base import log
from medscale.data.demo.generate import generate


def main(
    kind: str = typer.Option(..., help="the dataset kind"),
    options: str = typer.Option("{}", help="the generator's options as JSON"),
    out: Path = typer.Option(..., help="the raw folder"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    generate(kind, json.loads(options), out)


if __name__ == "__main__":
    run_script(main)
