"""Preprocessing, Dask workers and the loader against other software (`make bench-data`)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import typer

from bench import loader, preprocessing, workers
from medscale.base.errors import MedscaleError, tell_user
from medscale.engine.parallel.launch import KEEP_MEMORY

CONTESTS: dict[str, tuple[Callable[[Path, int, int], None], int]] = {
    "preprocessing": (preprocessing.contest, 12),
    "workers": (workers.contest, 2048),
    "loader": (loader.contest, 256),
}  # and how many images


def main(rounds: int = 5, only: str = "") -> None:
    """Run all contests, or ``--only`` one of them: preprocessing, workers, loader."""
    if only and only not in CONTESTS:
        raise MedscaleError(f"there is no contest {only!r}; there are: {', '.join(CONTESTS)}")
    os.environ.update(KEEP_MEMORY)  # for every contestant, as the launcher has it for CPU ranks
    for name in [only] if only else CONTESTS:
        hold, images = CONTESTS[name]
        with tempfile.TemporaryDirectory(prefix="medscale-bench-") as folder:
            hold(Path(folder), rounds, images)


if __name__ == "__main__":
    tell_user(typer.run)(main)
