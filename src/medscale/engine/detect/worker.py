"""The process of one rank of a detection run, started by the launcher."""

from __future__ import annotations

import typer

from medscale.engine.detect.task import Detection
from medscale.engine.train.worker import command

if __name__ == "__main__":
    typer.run(command(Detection))
