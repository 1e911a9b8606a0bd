"""Progress of a study on SLURM: jobs in the queue, jobs that failed, and what was not submitted."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medscale.base.errors import MedscaleError
from medscale.base.provenance import SITE
from medscale.cli.main import main
from medscale.resources.slurm import QueuedJob, seconds_of
from medscale.workflow.progress import queue
from medscale.workflow.progress.display import headline, running_lines
from medscale.workflow.progress.logs import excerpt, reason
from medscale.workflow.progress.queue import UNNOTICED_S, note
from medscale.workflow.progress.state import State, read
from progress_jobs import training

UNSUBMITTED = "Job submission failed with exception: The given account x appears to be invalid"
BROKEN = "SLURM-job '7' failed, SLURM status is: 'FAILED'. Detailed failure reason unavailable"


REFUSED = (
    "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition specified: no\n"
    "sbatch: error: Batch job submission failed: Invalid partition name specified'.\n"
    "    sbatch call:\n        sbatch --parsable -p no"
)


@pytest.mark.parametrize(
    ("stage", "slurm", "message", "expected"),
    [
        (
            None,
            "slurmstepd: error: Exceeded job memory limit",
            BROKEN,
            "it ran out of memory; each further attempt requests twice as much, up to node.memory",
        ),
        (None, None, UNSUBMITTED, "the job was not submitted: The given account x appears to be"),
        (None, None, REFUSED, "sbatch refused the job: Batch job submission failed: Invalid part"),
        (
            "epoch 3/8",
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01 ***",
            "",
            "it was",
        ),
        (
            "epoch 3/8",
            "*** JOB 7 ON n1 CANCELLED AT 2026-01-01 DUE TO TIME LIMIT ***",
            "",
            "it reach",
        ),
        (
            "epoch 3/8",
            "*** JOB 7 ON n1 CANCELLED AT 2026-01-01 DUE TO NODE FAILURE",
            "",
            "its node",
        ),
        ("epoch 3/8", "slurmstepd: error: Exceeded job memory limit", "", "it ran out of memory"),
        (
            "medscale: error: no card is free",
            "*** JOB 7 ON n1 CANCELLED AT 2026 ***",
            "",
            "no card",
        ),
        (
            None,
            "/bin/bash: line 1: apptainer: command not found\nsrun: exit 1",
            BROKEN,
            "/bin/bash:",
        ),
        (None, "WorkflowError:\nThe apptainer command\nsrun: error: n1", BROKEN, "srun: error"),
        (
            None,
            "WorkflowError:\nThe apptainer command has to be available\nWorkflowError:\n"
            "At least one job did not complete\nsrun: error: n1: task 0: Exited with exit code 1",
            BROKEN,
            "The apptainer command has to be available",
        ),
        (None, "died with <Signals.SIGKILL: 9>", BROKEN, "it was killed"),
        (None, "FATAL:   container creation failed: no /scratch", BROKEN, "FATAL:   container"),
        (None, None, BROKEN.replace("FAILED", "CANCELLED"), "it was cancelled"),
        (None, "Building DAG of jobs...", BROKEN, "SLURM ended it: FAILED"),
        (None, None, BROKEN, "SLURM ended it: FAILED"),
        (None, None, "", "its process ended without a message, and without a log"),
    ],
)
def test_why_a_slurm_job_failed(
    tmp_path: Path, stage: str | None, slurm: str | None, message: str, expected: str
) -> None:
    logs = [tmp_path / "stage.log", tmp_path / "slurm.log"]
    if stage is not None:
        logs[0].write_text(f"2026-11-26 12:00:00 ERROR {stage}\n")
    if slurm is not None:
        logs[1].write_text(f"{slurm}\n")
    assert reason(logs, message, None)[0].startswith(expected)


def test_the_end_of_a_slurm_job_is_not_hidden_by_what_snakemake_prints(tmp_path: Path) -> None:
    log, end = tmp_path / "7.log", "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0"
    chatter = [f"message {number}" for number in range(9)]
    log.write_text("\n".join([end, *chatter]))
    assert excerpt(log, 5) == [end, *chatter[-5:]]
    assert excerpt(log, 20) == [end, *chatter]


def test_a_refusal_of_slurm_has_its_remedy() -> None:
    refusals = {
        "Invalid qos specification": f"correct {SITE}",
        "Requested node configuration is not available": "`sinfo -R`",
        "Job violates accounting/QOS policy (job submit limit)": "--jobs 10",
        "Unable to contact slurm controller (connect failure)": "SLURM does not answer",
    }
    for sentence, remedy in refusals.items():
        message = f"SLURM sbatch failed. The error message was 'sbatch: error: {sentence}'.\n"
        assert remedy in reason([], message, None)[0]
    assert reason([], REFUSED, None)[0].endswith(f"specified; correct {SITE}")


def test_a_log_of_an_earlier_attempt_does_not_tell_why_this_one_failed(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    log.write_text("2026-11-26 12:00:00 ERROR medscale: error: the disk is full\n")
    assert reason([log], BROKEN, log.stat().st_mtime + 1) == ("the disk is full", log)
    os.utime(log, (1e9, 1e9))
    assert reason([log], BROKEN, 1.1e9) == ("SLURM ended it: FAILED", None)


def test_jobs_in_slurms_queue_are_told_from_those_that_run(tmp_path: Path) -> None:
    jobs = [training(number) for number in range(1, 5)]
    state = State(tmp_path)
    state.expect(jobs)
    for job in jobs:
        job.title = f"train skin/ddp_2gpu {job.wildcards['replicate']} (.)"
        state.start(job.number, job.rule, job.wildcards, None)
    queued = [
        QueuedJob("11", "PENDING", "0:00", "(Priority)", jobs[0].title),
        QueuedJob("12", "PENDING", "0:00", "(PartitionTimeLimit)", jobs[1].title),
        QueuedJob("13", "RUNNING", "1-00:00:10", "n1", jobs[2].title),
    ]
    [sentence] = note(state, queued, now=1e6)
    assert sentence.startswith("skin ddp_2gpu seed 2 waits in SLURM's queue and will not start by")
    assert "PartitionTimeLimit (scontrol show job 12" in sentence
    assert jobs[2].started == 1e6 - 86_410
    lines = list(running_lines(state, 1e6))
    assert lines[-1] == "2 in SLURM's queue: Priority 1, PartitionTimeLimit 1"
    assert lines[0] == "skin ddp_2gpu seed 3, 24 h 00 min"
    assert headline(state, 1e6).endswith("left without the wait in SLURM's queue")
    place = "(Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority)"
    note(state, [QueuedJob("11", "PENDING", "0:00", place, jobs[0].title)], now=1e6)
    assert list(running_lines(state, 1e6))[-1] == (
        "1 in SLURM's queue: nodes are down, drained or reserved (sinfo -R)"
    )
    note(state, queued, now=1e6)
    state.write()
    assert read(tmp_path).state.jobs[1].waits == "Priority"  # type: ignore[union-attr]
    note(state, [QueuedJob("11", "RUNNING", "0:05", "n1", jobs[0].title)], now=2e6)
    assert [job.waits for job in jobs] == [None] * 4
    assert jobs[0].started == 2e6 - 5


def test_the_watch_asks_again_after_a_failure_and_says_each_sentence_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "EVERY_S", 0.001)
    state, job, said = State(tmp_path), training(1), list[str]()
    job.title = "train skin/ddp_2gpu seed1 (.)"
    state.expect([job])
    state.start(job.number, job.rule, job.wildcards, None)
    asked, enough = 0, threading.Event()

    def ask() -> list[QueuedJob]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise MedscaleError("SLURM does not answer")
        if asked == 4:
            enough.set()
        return [QueuedJob("12", "PENDING", "0:00", "(PartitionTimeLimit)", job.title)]

    watch = queue.Watch(state, ask, said.append)
    assert enough.wait(30)
    watch.close()
    watch._thread.join(30)
    assert not watch._thread.is_alive()
    [sentence] = said
    assert sentence.startswith("skin ddp_2gpu seed 1 waits in SLURM's queue")
    assert read(tmp_path).state.jobs[1].waits == "PartitionTimeLimit"  # type: ignore[union-attr]


def test_a_job_that_ended_unnoticed_is_reported(tmp_path: Path) -> None:
    state, job = State(tmp_path), training(1)
    state.expect([job])
    state.start(job.number, job.rule, job.wildcards, None)
    job.started = 1e6
    assert note(state, [], now=2e6) == []  # a job outside SLURM
    job.title = "train skin/ddp_2gpu seed1 (.)"
    entry = QueuedJob("11", "RUNNING", "1:00", "n1", job.title)
    assert note(state, [entry], now=2e6) == []
    assert note(state, [], now=2e6 + UNNOTICED_S) == []
    [sentence] = note(state, [], now=2e6 + UNNOTICED_S + 1)
    assert sentence.startswith("skin ddp_2gpu seed 1 is no longer in SLURM's queue")
    state.start(job.number, job.rule, job.wildcards, None)
    assert note(state, [], now=time.time()) == []


def test_times_of_slurm_are_seconds() -> None:
    texts = ("0:07", "10:00", "1:00:00", "2-03:00:01", "INVALID")
    assert [seconds_of(text) for text in texts] == [7, 600, 3600, 183_601, None]


@pytest.mark.parametrize("title", ["", "train skin/ddp_2gpu (out)"])
def test_silence_of_slurm_concerns_only_a_study_with_jobs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    changes, state = tmp_path / "changes.yaml", State(tmp_path / "out")
    changes.write_text(f"scale: demo\nworkdir: {state.workdir}\n")
    state.expect([training(1)])
    state.jobs[1].title = title
    state.write()
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho Unable to contact slurm controller >&2; exit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    result = CliRunner().invoke(main, ["status", "--configfile", str(changes)])
    assert result.exit_code == 0
    assert ("SLURM's queue is not known" in result.stderr) == bool(title)
