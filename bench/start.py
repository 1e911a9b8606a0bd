"""CPU time of commands that a person waits for, as multiples of the programs they are built on.

`snakemake -n` is compared with the import of Snakemake, since each process of Snakemake pays for
the Snakefile before it does anything: on a cluster that is each job. For the whole study it is
compared with a workflow of as many jobs that imports nothing. `medscale --help`, and commands with
a path that does not exist, are compared with the help of a program of one command (Typer).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import typer

from bench.contest import finish, judge, ratio, show, take_turns
from medscale.base.code import ROOT
from medscale.base.errors import EXIT_USER, MedscaleError, tell_user

IMPORT, PLAN = "import snakemake.cli", "snakemake -n of one result"
BARE, STUDY = "snakemake -n of as many bare jobs", "snakemake -n of the study"
SMALL, HELP = "help of one command", "medscale --help"
# Limits of the ratios. A loaded machine with 2 cores measured 1.05 to 1.20, 1.26 to 1.29, 1.05 to
# 1.20, and for refused paths 1.2 to 1.6.
LIMITS = ((PLAN, IMPORT, 1.5), (STUDY, BARE, 1.5), (HELP, SMALL, 1.5))
REFUSED = {
    "predict": ["absent", "absent.jpg"],
    "show": ["absent"],
    "export": ["absent"],
    "serve": ["absent"],
    "check": ["--configfile", "absent.yaml"],
}
REFUSED_LIMIT = 2.0
ONE_COMMAND = "import typer\ndef main(name: str) -> None: pass\ntyper.run(main)"
# A chain of three jobs for each unit, with the kinds of files and functions that stages have.
BARE_SNAKEFILE = """
rule all:
    input: expand("results/{{i}}.json", i=range({units}))
rule plan:
    output: "plans/{{i}}.json"
    log: "logs/{{i}}.plan"
    shell: "touch {{output}} 2> {{log}}"
rule train:
    input: "plans/{{i}}.json"
    output: "runs/{{i}}.csv", "runs/{{i}}.json"
    log: "logs/{{i}}.train"
    params: code=lambda wildcards: wildcards.i
    shell: "touch {{output}} 2> {{log}}"
rule evaluate:
    input: "runs/{{i}}.csv", "runs/{{i}}.json"
    output: "results/{{i}}.json"
    log: "logs/{{i}}.evaluate"
    params: code=lambda wildcards: wildcards.i
    shell: "touch {{output}} 2> {{log}}"
"""


def cpu_seconds(name: str, command: list[str], status: int = 0) -> float:
    """Return the user and system seconds of a command and its children.

    Raises MedscaleError where a command ends with another exit status.
    """
    before = getrusage(RUSAGE_CHILDREN)
    if status:
        process = subprocess.run(command, capture_output=True, text=True, cwd="/")
        if process.returncode != status:
            raise MedscaleError(f"{name} ended with {process.returncode}: {process.stderr}")
    else:
        finish(name, command)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(rounds: int = 5, target: str = "results/glaucoma/serial_1cpu") -> None:
    """Measure all in turns and judge their ratios."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's modules are compiled once
    python, snakemake = sys.executable, [sys.executable, "-m", "snakemake"]
    dry_run = [*snakemake, "--snakefile", str(ROOT / "Snakefile"), "-n"]
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--config", f"workdir={Path(folder) / 'work'}"]
        whole = [*dry_run, *settings]
        bare = Path(folder) / "Snakefile"
        bare.write_text(BARE_SNAKEFILE.format(units=_jobs(whole) // 3))
        bare_options = ["--directory", folder, "-n", "--quiet", "rules"]
        commands = {
            IMPORT: [python, "-c", "import snakemake.cli"],
            PLAN: [*dry_run, target, *settings, "scale=demo"],
            BARE: [*snakemake, "--snakefile", str(bare), *bare_options],
            STUDY: whole,
            SMALL: [python, "-c", ONE_COMMAND, "--help"],
            HELP: [python, "-m", "medscale.cli", "--help"],
        }
        refused = {
            f"medscale {name} of an absent path": [python, "-m", "medscale.cli", name, *arguments]
            for name, arguments in REFUSED.items()
        }
        statuses = dict.fromkeys(commands, 0) | dict.fromkeys(refused, EXIT_USER)
        ways = {
            name: lambda _, name=name, command=command: cpu_seconds(name, command, statuses[name])
            for name, command in (commands | refused).items()
        }
        for way in ways.values():
            way(0)  # compiles modules and parses the code once
        table = take_turns(ways, rounds)
    show(table, SMALL, "CPU time, user and system")
    limits = [*LIMITS, *((name, SMALL, REFUSED_LIMIT) for name in refused)]
    for name, base, limit in limits:
        measured = ratio(table, name, base)
        judge(f"{name} costs at most {limit:g} times {base}", measured, measured[0] <= limit)


def _jobs(command: list[str]) -> int:
    """Return the number of jobs that a dry run plans."""
    process = subprocess.run(command, capture_output=True, text=True)
    totals = re.findall(r"^(\d+) jobs would run", process.stderr, re.M)
    if process.returncode or not totals:
        raise MedscaleError(f"the dry run failed: {process.stderr}")
    return int(totals[-1])


if __name__ == "__main__":
    tell_user(typer.run)(main)
