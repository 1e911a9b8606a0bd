"""Runs Snakemake as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import warm_python

ROOT = Path(__file__).parents[1]


def snakemake(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in the project's root and return its exit code and output.

    The packages that it needs are imported already (``warm_python``).

    ``seconds``: after which it is killed and the test fails.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return warm_python.run(
        ["-m", "snakemake", *arguments],
        warm_python.PLANNING,
        cwd=ROOT,
        environment=environment,
        seconds=seconds,
    )
