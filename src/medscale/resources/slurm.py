"""Queries to SLURM: its queue, and jobs left by an earlier Snakemake."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from medscale.base.errors import MedscaleError

PREFIX = "medscale"  # of job names, as set in profiles/slurm
LOGS = Path("logs/slurm")  # below the project's root, as set in profiles/slurm
CANCEL_TIMEOUT_S = 120.0
PLACE_VARIABLE = "MEDSCALE_PLACE"  # the workdir of a job, which profiles/slurm/job.sh prints
PLACE = re.compile(r"^medscale: job of (.+)$", re.M)
HEAD_BYTES = 4000  # of a log, in which that line is
CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
UNREACHED = re.compile(r"[Uu]nable to contact|[Cc]onnection refused|timed out")


def end_orphans(root: Path, workdir: str) -> list[str]:
    """Cancel the jobs of an earlier Snakemake for a workdir, and return their titles.

    If a Snakemake was killed or lost its connection, nothing collects the outputs of its jobs. They
    would conflict with new jobs for the same runs, which continue from the checkpoints. Call this
    while Snakemake's lock on the workdir is held, so that no running Snakemake owns the jobs.

    Raises:
        MedscaleError: when the jobs do not end within two minutes.
    """
    orphans = _orphans(root, workdir)
    if orphans:
        ask("scancel", *orphans)
        deadline = time.monotonic() + CANCEL_TIMEOUT_S
        while remaining := sorted(_orphans(root, workdir).keys() & orphans.keys()):
            if time.monotonic() > deadline:
                raise MedscaleError(
                    "SLURM jobs of an earlier Snakemake do not end: "
                    f"{', '.join(remaining)}; cancel them with scancel"
                )
            time.sleep(1)
    return list(orphans.values())


@dataclass(frozen=True)
class QueuedJob:
    """A job in SLURM's queue."""

    number: str  # id of the job
    state: str  # name by SLURM: PENDING, RUNNING, …
    elapsed: str  # time since its start, in SLURM's form
    place: str  # nodes, or the reason for waiting
    title: str  # comment of the job in SLURM: stage, study, run and workdir


def queue(root: Path, workdir: str) -> list[QueuedJob]:
    """Return the queued jobs that were submitted from ``root`` for a workdir.

    Raises:
        MedscaleError: when SLURM does not answer.
    """
    form = "--format=%i|%j|%Z|%T|%M|%R|%k"
    lines = [line.split("|", 6) for line in ask("squeue", "--me", "--noheader", form)]
    return [
        QueuedJob(number, state, elapsed, place, comment)
        for number, name, folder, state, elapsed, place, comment in lines
        if name.startswith(f"{PREFIX}_")
        and Path(folder) == root
        and comment.endswith(f"({workdir})")
    ]


def seconds_of(clock: str) -> float | None:
    """Return a time of SLURM in seconds; its form is [[days-]hours:]minutes:seconds."""
    if (match := CLOCK.fullmatch(clock)) is None:
        return None
    days, hours, minutes, seconds = (int(text or 0) for text in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def is_of(log: Path, workdir: str) -> bool:
    """Whether a job's log is of a workdir; also if the log does not name its workdir.

    Jobs of all workdirs, such as those of the demo and of the full scale, share a folder of logs.
    """
    with log.open(encoding="utf-8", errors="replace") as stream:
        place = PLACE.search(stream.read(HEAD_BYTES))
    return place is None or place[1] == workdir


def _orphans(root: Path, workdir: str) -> dict[str, str]:
    """Return the titles, by number, of the queued jobs of a workdir."""
    return {job.number: job.title for job in queue(root, workdir)}


def settings() -> dict[str, str]:
    """Return SLURM's own settings by name; none where it does not answer."""
    try:
        lines = ask("scontrol", "show", "config")
    except MedscaleError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): text.strip() for name, _, text in pairs}


def refusal(options: list[str]) -> str | None:
    """Return the sentence with which sbatch refuses a job; None if it would take it.

    Args:
        options: options of sbatch; the job is not submitted.
    """
    try:
        ask("sbatch", "--test-only", *options, "--wrap=true")
    except MedscaleError as error:
        return re.sub(r"^.*?(error|failure): ", "", str(error).splitlines()[-1])
    return None


def ask(*command: str) -> list[str]:
    """Return the lines that a SLURM program prints.

    Raises:
        MedscaleError: when it fails or does not answer within a minute.
    """
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MedscaleError(f"{command[0]} does not answer: {error}") from None
    if process.returncode != 0:
        text = process.stderr.strip() or str(process.returncode)
        if UNREACHED.search(text):
            raise MedscaleError(
                f"SLURM does not answer; try again when it does ({command[0]}: {text})"
            )
        raise MedscaleError(f"{' '.join(command)} failed: {text}")
    return [line for line in process.stdout.splitlines() if line.strip()]
