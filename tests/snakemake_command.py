"""Runs Snakemake as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def snakemake(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in the project's root and return its exit code and output.

    ``seconds``: after which it is killed and the test fails.
    """
    command = [sys.executable, "-m", "snakemake", *arguments]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, env=environment
    )
