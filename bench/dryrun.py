"""CPU time of `snakemake -n` for one result, as a multiple of importing Snakemake.

Each process of Snakemake pays this before it does anything: on a cluster that is each job.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import typer

from bench.contest import finish, judge, ratio, show, take_turns
from medscale.base.code import ROOT
from medscale.base.errors import tell_user

IMPORT, DRY_RUN = "import snakemake.cli", "snakemake -n of one result"
LIMIT = 3.0


def cpu_seconds(name: str, command: list[str]) -> float:
    """Return the user and system seconds of a command and its children."""
    before = getrusage(RUSAGE_CHILDREN)
    finish(name, command)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(rounds: int = 5, target: str = "results/glaucoma/serial_1cpu") -> None:
    """Measure both in turns and print their ratio."""
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    with tempfile.TemporaryDirectory() as workdir:
        settings = ["--config", "scale=demo", f"workdir={Path(workdir)}"]
        commands = {
            IMPORT: [sys.executable, "-c", "import snakemake.cli"],
            DRY_RUN: [*snakemake, "-n", target, *settings],
        }
        for name, command in commands.items():
            finish(name, command)  # compiles modules and parses the code once
        ways = {
            name: lambda _, name=name, command=command: cpu_seconds(name, command)
            for name, command in commands.items()
        }
        table = take_turns(ways, rounds)
    show(table, IMPORT, "CPU time, user and system")
    measured = ratio(table, DRY_RUN, IMPORT)
    judge(f"{DRY_RUN} costs at most {LIMIT:g} times the import", measured, measured[0] <= LIMIT)


if __name__ == "__main__":
    tell_user(typer.run)(main)
