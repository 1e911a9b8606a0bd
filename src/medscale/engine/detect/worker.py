"""What torchrun starts once a device for a detection run; the classification's worker with another task."""

from __future__ import annotations

from pathlib import Path

import typer

from medscale.engine.detect.task import Detection
from medscale.engine.train.worker import carry_out


def main(
    spec: Path = typer.Option(...),
    shards: Path = typer.Option(...),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    """Carry out the plan of a detection in ``spec`` on this rank."""
    carry_out(spec, shards, out, log_file, Detection)


if __name__ == "__main__":
    typer.run(main)
