"""State of a running study: its jobs by stage, the time left, and the file that others read."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json

FILE = Path("logs", "progress.json")  # below the workdir
# The stages in the order of their lines; a rule that no stage names is a chapter of the report.
# Rules of small files have no line.
STAGES: dict[str, tuple[str, ...]] = {
    "data": ("demo_data", "index", "shards"),
    "trainings": ("train",),
    "results": ("evaluate", "external", "reference"),
    "benchmarks": ("enhance", "loading", "formats", "export", "inference", "profile"),
    "figures": (),
    "paper": ("paper_pdf",),
    "": ("plan", "config"),
}
OTHERS = "figures"
NAMES = ("study", "run", "replicate")  # wildcards in the order of a job's name
PRIOR_S = 20.0  # seconds of jobs that took as long as expected, which each stage begins with


@dataclass
class Job:
    """A job of Snakemake."""

    number: int  # jobid
    rule: str
    wildcards: dict[str, str] = field(default_factory=dict)
    expected_s: float = 0.0
    log: str | None = None  # path relative to the workdir, or absolute
    started: float | None = None  # Unix time
    ended: float | None = None  # Unix time; None while it waits or runs
    failure: str | None = None  # the reason, such as the last sentence of its log
    title: str = ""  # name of its SLURM job; empty for a job outside SLURM
    waits: str | None = None  # SLURM's reason why it does not run yet
    queued: float | None = None  # Unix time at which it was last seen in SLURM's queue
    needs: list[int] = field(default_factory=list)  # jobids whose outputs are its inputs

    @property
    def name(self) -> str:
        """Study, run and seed of the job, as a person would say them."""
        keys = [key for key in NAMES if key in self.wildcards]
        order = keys + sorted(self.wildcards.keys() - set(NAMES))
        title = self.rule.removesuffix("_report").replace("_", " ")
        texts = [
            self.wildcards[key].replace("seed", "seed ").replace("_fold", " fold ")
            if key == "replicate"
            else self.wildcards[key]
            for key in order
            if self.wildcards[key] != title
        ]
        return " ".join(texts if self.rule == "train" else [title, *texts])

    @property
    def is_finished(self) -> bool:
        """Whether it ended without a failure."""
        return self.ended is not None and self.failure is None

    @property
    def stage(self) -> str:
        """Stage of the job's rule."""
        return stage_of(self.rule)


def stage_of(rule: str) -> str:
    """Return the stage of a rule."""
    return next((stage for stage, rules in STAGES.items() if rule in rules), OTHERS)


class State:
    """All jobs of one call of Snakemake; ``now`` are Unix times in seconds."""

    def __init__(self, workdir: Path, now: float | None = None) -> None:
        self.workdir = workdir
        self.start_time = time.time() if now is None else now
        self.ended: float | None = None
        self.keeps_going = False  # a failure does not keep other jobs from starting (--keep-going)
        self.is_interrupted = False  # no more jobs start: a user stops the study
        self.jobs: dict[int, Job] = {}
        self._lock = threading.Lock()  # several threads write the file: the last one's state stays

    def expect(self, jobs: Iterable[Job]) -> None:
        """Take the list of all jobs to carry out."""
        self.jobs.update({job.number: job for job in jobs})

    def start(self, number: int, rule: str, wildcards: Mapping[str, str], log: str | None) -> Job:
        """Record the start of a job, also of one that a failed attempt precedes."""
        job = self.jobs.setdefault(number, Job(number, rule, dict(wildcards)))
        job.log, job.started, job.ended, job.failure = log, time.time(), None, None
        job.waits = job.queued = None
        return job

    def finish(self, number: int, failure: str | None = None) -> Job | None:
        """Record the end of a job; ``failure``: the last sentence of its log, if it failed."""
        job = self.jobs.get(number)
        if job is not None:
            job.ended, job.failure, job.waits = time.time(), failure, None
        return job

    def stop(self, number: int) -> None:
        """Record that a job was ended because a user stopped the study; this is no failure."""
        job = self.jobs.get(number)
        if job is not None:
            job.started = job.waits = None

    def running(self) -> list[Job]:
        """Return the jobs that run or wait in SLURM's queue, the first started first."""
        active = [
            job for job in self.jobs.values() if job.started is not None and job.ended is None
        ]
        return sorted(active, key=lambda job: job.started or 0.0)

    def finished(self) -> list[Job]:
        """Return the jobs that ended without a failure."""
        return [job for job in self.jobs.values() if job.is_finished]

    def failed(self) -> list[Job]:
        """Return the jobs that failed and were not started again."""
        return [job for job in self.jobs.values() if job.failure is not None]

    def to_come(self) -> list[Job]:
        """Return the unfinished jobs that run now or can still start.

        After a failure Snakemake awaits the running jobs and starts no others. With
        ``--keep-going`` it starts those that do not need a job that failed.
        """
        jobs = [job for job in self.jobs.values() if job.ended is None and self.ended is None]
        failed = {job.number for job in self.failed()}
        if self.is_interrupted or (failed and not self.keeps_going):
            return [job for job in jobs if job.started is not None]
        blocked = failed
        while more := {j.number for j in jobs if blocked.intersection(j.needs)} - blocked:
            blocked = blocked | more
        return [job for job in jobs if job.number not in blocked]

    def stages(self) -> dict[str, list[Job]]:
        """Return the jobs of each stage that has some."""
        grouped = {stage: [j for j in self.jobs.values() if j.stage == stage] for stage in STAGES}
        return {stage: jobs for stage, jobs in grouped.items() if stage and jobs}

    def left_s(self, now: float, jobs: Iterable[Job] | None = None) -> float | None:
        """Return the seconds that jobs (all, by default) will still take; None if unknown.

        Jobs that will not start any more do not count.

        The expected seconds of each stage are corrected by the ratio of measured to expected time
        of its finished jobs. Another stage's ratio tells nothing: a short index says how many
        images there are, not how long a training takes. The sum is divided by the mean number of
        jobs that ran at a time. It takes at least as long as the longest chain of jobs that need
        each other, which nothing shortens.
        """
        if not self.jobs:
            return None
        by_stage: dict[str, list[Job]] = {}
        for job in self.finished():
            by_stage.setdefault(job.stage, []).append(job)
        ratios = {stage: _ratio(finished) for stage, finished in by_stage.items()}
        numbers = self.jobs if jobs is None else {job.number for job in jobs}
        left: dict[int, float] = {}
        for job in self.to_come():
            if job.number in numbers:
                total = job.expected_s * ratios.get(job.stage, 1.0)
                passed = now - job.started if job.started is not None else 0.0
                left[job.number] = max(total - passed, 0.1 * total)
        return max(sum(left.values()) / self._at_a_time(now), self._longest_chain(left))

    def _longest_chain(self, left: Mapping[int, float]) -> float:
        """Return the largest sum of seconds over jobs of which each needs the one before."""

        @cache
        def until_end(number: int) -> float:
            before = [until_end(needed) for needed in self.jobs[number].needs if needed in left]
            return left[number] + max(before, default=0.0)

        return max(map(until_end, left), default=0.0)

    def _at_a_time(self, now: float) -> float:
        """Return the mean number of jobs that ran at a time, at least 1."""
        times = [(job.started, job.ended or now) for job in self.jobs.values()]
        spans = [(start, end) for start, end in times if start is not None]
        if not spans:
            return 1.0
        busy = sum(end - start for start, end in spans)
        return max(1.0, busy / max(now - min(start for start, _ in spans), 1.0))

    def facts(self) -> dict[str, Any]:
        """Return the content of ``FILE``."""
        return {
            "workdir": str(self.workdir),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "begun": self.start_time,
            "ended": self.ended,
            "keeps_going": self.keeps_going,
            "is_interrupted": self.is_interrupted,
            "jobs": [asdict(job) for job in self.jobs.values()],
        }

    def write(self) -> None:
        """Write ``FILE``, for other processes; the jobs tell of a full disk."""
        file = self.workdir / FILE
        with self._lock, suppress(MedscaleError, OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, self.facts())


@dataclass(frozen=True)
class Recorded:
    """The content of ``FILE``: a state, and whether the process that wrote it still runs."""

    state: State
    host: str
    process: int
    is_alive: bool | None  # None where it was another host's
    # It ended without recording its end; `state.ended` is then the time of its last record.
    was_killed: bool = False


def read(workdir: Path) -> Recorded | None:
    """Return the progress of a study as its workdir records it; None without a record.

    Raises MedscaleError when the file is damaged, or another version wrote it.
    """
    file = workdir / FILE
    if not file.is_file():
        return None
    facts = read_json(file)
    try:
        state = State(Path(facts["workdir"]), facts["begun"])
        state.ended = facts["ended"]
        state.keeps_going = facts["keeps_going"]
        state.is_interrupted = facts["is_interrupted"]
        state.expect(Job(**job) for job in facts["jobs"])
        host, process = facts["host"], facts["process"]
    except (KeyError, TypeError):
        raise MedscaleError(
            f"{file} was written by another version of medscale; the next study replaces it"
        ) from None
    is_alive = _is_alive(state, host, process)
    was_killed = state.ended is None and is_alive is False
    if was_killed:
        state.ended = file.stat().st_mtime
    return Recorded(state, host, process, is_alive, was_killed)


def _is_alive(state: State, host: str, process: int) -> bool | None:
    """Return whether the process of a state still runs; None where it was another host's."""
    if state.ended is not None:
        return False
    if host != socket.gethostname():
        return None
    # Imported here: the live display uses this module, and starts faster without psutil.
    import psutil

    try:
        writer = psutil.Process(process)
        # A killed process remains as a zombie until its parent reads its exit status; in a
        # container, the parent may never read it.
        start_time = writer.create_time()
        is_zombie = writer.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    # A later process has the number of one that ended.
    return start_time <= state.start_time and not is_zombie


def _ratio(jobs: list[Job]) -> float:
    """Return measured over expected seconds of finished jobs; that of few jobs is nearer to 1."""
    expected = sum(job.expected_s for job in jobs)
    measured = sum((job.ended or 0.0) - (job.started or 0.0) for job in jobs)
    return (measured + PRIOR_S) / (expected + PRIOR_S)
