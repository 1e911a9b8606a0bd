"""Make a study's index from its raw images: index.parquet, audit.csv and audit.json."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
import json
from pathlib import Path

import typer

from medscale.base import log
from medscale.base.files import read_json
from medscale.data.index import build_index
from medscale.data.settings import Dask, Source, Split


def main(
    source: str = typer.Option(..., help="the study's section source as JSON, without its path"),
    raw: Path = typer.Option(..., help="the raw folder"),
    split: str = typer.Option(..., help="the study's section split as JSON"),
    classes: str = typer.Option("null", help="the study's classes as JSON"),
    classes_of: Path | None = typer.Option(
        None, help="audit.json of the study whose classes external images have"
    ),
    dask: str = typer.Option("{}", help="the section dask as JSON"),
    out: Path = typer.Option(..., help="the study's data folder"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    # The path is set after validation: a synthetic source must not have one in the configuration.
    build_index(
        Source.model_validate_json(source).model_copy(update={"path": raw}),
        Split.model_validate_json(split),
        json.loads(classes) if classes_of is None else read_json(classes_of)["classes"],
        Dask.model_validate_json(dask),
        out,
    )


if __name__ == "__main__":
    run_script(main)
