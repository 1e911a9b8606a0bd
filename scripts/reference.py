"""Fit the linear reference of a study: reference.json and reference.csv."""

from medscale.base.script import run_script  # first: Ctrl-C during imports prints no traceback

# isort: split
from pathlib import Path

import typer

from medscale.base import log
from medscale.base.files import write_csv, write_json
from medscale.data.index_file import read_index
from medscale.data.shards import Shards
from medscale.evaluate.reference import reference


def main(
    study: str,
    index: Path = typer.Option(...),
    shards: Path = typer.Option(...),
    out: Path = typer.Option(..., help="folder of reference.json and reference.csv"),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    log.set_up(log_file)
    summary, resamples = reference(study, Shards.open(shards), read_index(index))
    write_csv(out / "reference.csv", resamples)
    write_json(out / "reference.json", summary)
    auroc = summary["metrics"]["test"]["auroc"]["mean"]
    log.log.info(
        "linear reference: AUROC %s, accuracy %.3f; %s is %.3f of the test images",
        "not defined" if auroc is None else f"{auroc:.3f}",
        summary["metrics"]["test"]["accuracy"]["mean"],
        summary["majority"]["class"],
        summary["majority"]["share"],
    )


if __name__ == "__main__":
    run_script(main)
