"""Preprocess a study's images into shards under Dask; only unfinished chunks are made."""

from pathlib import Path

import typer

from medscale.base import log
from medscale.base.errors import tell_user
from medscale.data.build import build_shards
from medscale.data.settings import Dask, Preprocess


def main(
    index: Path = typer.Option(...),
    raw: Path = typer.Option(..., help="the raw folder that the index's paths are relative to"),
    preprocess: str = typer.Option(..., help="the study's preprocess section as JSON"),
    dask: str = typer.Option("{}", help="the dask section as JSON"),
    boxes: bool = typer.Option(False, "--boxes", help="write the index's boxes beside the images"),
    beside: list[Path] = typer.Option(
        [], help="shard sets of the same images, whose chunks may be linked"
    ),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    settings = Preprocess.model_validate_json(preprocess)
    build_shards(
        index, raw, settings, Dask.model_validate_json(dask), out, with_boxes=boxes, beside=beside
    )


if __name__ == "__main__":
    tell_user(typer.run)(main)
