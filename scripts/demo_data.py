"""Write synthetic raw images in the layout of a source; the last file is demo.json."""

import json
from pathlib import Path

import typer

from medscale.base import log
from medscale.base.errors import tell_user
from medscale.data.demo.generate import generate


def main(
    kind: str = typer.Option(...),
    options: str = typer.Option("{}", help="the generator's options as JSON"),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    generate(kind, json.loads(options), out)


if __name__ == "__main__":
    tell_user(typer.run)(main)
