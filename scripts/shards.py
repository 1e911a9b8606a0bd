"""Preprocess a study's images into shards under Dask; finished chunks are kept."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from pathlib import Path

import typer

from medscale.base import log
from medscale.data.build import build_shards
from medscale.data.settings import Dask, Limits, Preprocess


def main(
    index: Path = typer.Option(..., help="the study's index.parquet"),
    raw: Path = typer.Option(..., help="the raw folder, to which the index's paths are relative"),
    preprocess: str = typer.Option(..., help="the study's section preprocess as JSON"),
    limits: str = typer.Option("{}", help="the source's section limits as JSON"),
    dask: str = typer.Option("{}", help="the section dask as JSON"),
    boxes: bool = typer.Option(False, "--boxes", help="write the index's boxes as well"),
    beside: list[Path] = typer.Option(
        [], help="shard sets of the same images, whose chunks may be linked"
    ),
    out: Path = typer.Option(..., help="folder of the shard set"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    settings = Preprocess.model_validate_json(preprocess)
    build_shards(
        index,
        raw,
        settings,
        Dask.model_validate_json(dask),
        out,
        limits=Limits.model_validate_json(limits),
        with_boxes=boxes,
        siblings=beside,
    )


if __name__ == "__main__":
    run_script(main)
