"""Jobs of a study that is followed: trainings that run or have ended."""

from __future__ import annotations

from medscale.workflow.progress.state import Job


def training(number: int, run: str = "ddp_2gpu", expected: float = 10.0) -> Job:
    wildcards = {"study": "skin", "run": run, "replicate": f"seed{number}"}
    return Job(number, "train", wildcards, expected)


def finished(job: Job, start: float, seconds: float) -> Job:
    job.started, job.ended = start, start + seconds
    return job
