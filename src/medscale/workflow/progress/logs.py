"""Logs of jobs: their last sentence, the progress of a training, the logs of a target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from medscale.base.errors import FAULT

TAIL_BYTES = 20_000
STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ")
ERROR = re.compile(r"^medscale: error: (.+)")
EPOCH = re.compile(r"epoch (\d+)/(\d+) .*\|  (\d+) images/s, (.+?) left")
TARGET = re.compile(r"(?:\./)?(results|runs|profiled|external)/([^/]+)/([^/]+)")
STUDY_TARGET = re.compile(r"(?:\./)?(?:data|measured|figures|tables)/(?:raw/)?([^/]+)")


def tail(file: Path) -> list[str]:
    """Return the last lines of a log with their time of day; none if there is no log."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def last_sentence(file: Path) -> str:
    """Return the reason why a job failed, by the last entry of its log.

    An error of an earlier attempt, which other entries follow, is not the reason.
    """
    lines = tail(file)
    if not lines:
        return "its process ended without a message, and its log is empty"
    begin = next((n for n in range(len(lines) - 1, -1, -1) if STAMP.match(lines[n])), 0)
    entry = STAMP.sub("", lines[begin])
    if match := ERROR.match(entry) or ERROR.match(lines[-1]):
        return match[1]
    if entry.startswith(FAULT):
        return f"{FAULT}: {lines[-1]}"
    last = STAMP.sub("", lines[-1])
    return f"its process ended without a message; the last line of its log is: {last}"


def epoch(file: Path) -> str:
    """Return how far a training is by its log, such as "epoch 3 of 20, 530 images/s"; or empty."""
    for line in reversed(tail(file)):
        if match := EPOCH.search(line):
            return f"epoch {match[1]} of {match[2]}, {match[3]} images/s, {match[4]} left"
    return ""


def logs_of(workdir: Path, slurm_logs: Path, target: str) -> Iterator[Path]:
    """Yield the logs that belong to a target, those of its study first and the newest last.

    Args:
        workdir: folder of the study's outputs.
        slurm_logs: folder of SLURM's logs of jobs.
        target: a path of an output such as results/skin/ddp_2gpu, a study, or a study and a run.
    """
    study, run = _parts(target)
    if not study:
        folders = [workdir / "logs"]
    else:
        folders = [workdir / "logs" / study] + ([workdir / "logs" / study / run] if run else [])
    files = [file for folder in folders for file in folder.glob("*.log")]
    prefix = "_".join(part for part in (study, run) if part)
    files += slurm_logs.glob(f"rule_*/{prefix}*/*.log") if prefix else []
    yield from sorted(set(files), key=lambda file: file.stat().st_mtime)


def _parts(target: str) -> tuple[str, str]:
    """Return study and run of a target; empty strings where it names none."""
    if match := TARGET.match(target):
        return match[2], match[3]
    if match := STUDY_TARGET.match(target):
        return match[1], ""
    study, _, run = target.strip("/").partition("/")
    return ("", "") if study in ("paper", "all", "") else (study, run.partition("/")[0])
