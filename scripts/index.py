"""List, read, audit and split a study's raw images: index.parquet, audit.csv and audit.json."""

import json
from pathlib import Path

import typer

from medscale.base import log
from medscale.base.errors import tell_user
from medscale.data.index import build_index
from medscale.data.settings import Dask, Source, Split


def main(
    source: str = typer.Option(..., help="the study's source section as JSON, with its path"),
    split: str = typer.Option(..., help="the study's split section as JSON"),
    classes: str = typer.Option("null", help="the study's classes as JSON"),
    dask: str = typer.Option("{}", help="the dask section as JSON"),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    # Not model_validate_json alone: a synthetic source has no path of its own, here it has the one it was written to.
    given = json.loads(source)
    place = given.pop("path", None)
    settings = Source.model_validate(given).model_copy(update={"path": place and Path(place)})
    build_index(
        settings,
        Split.model_validate_json(split),
        json.loads(classes),
        Dask.model_validate_json(dask),
        out,
    )


if __name__ == "__main__":
    tell_user(typer.run)(main)
