"""Faults in a training: it continues from its checkpoint and ends as one without faults."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from rig import ROOT, TOOLS, Rig, await_, finish, read_document, tail

pytestmark = pytest.mark.cluster
RUN = "serial_1cpu_bs16"
LOGS = ROOT / "logs/slurm/rule_train"
SECONDS = 150  # of steps with twice the batch; with its own and validation half as long again


class Long:
    """A long training below the workdir of the complete study, and the Snakemake that runs it."""

    def __init__(self, rig: Rig, study: Path, local: Path) -> None:
        runs = [folder / "runs/glaucoma/serial_1cpu/seed1/history.csv" for folder in (study, local)]
        quickest = min(pd.concat(map(pd.read_csv, runs))["seconds"])
        epochs = math.ceil(SECONDS / quickest)
        changes = {
            "studies": {
                "glaucoma": {"recipe": {"epochs": epochs}, "parallel": {"checkpoint_every_s": 3}}
            }
        }
        self.rig, self.study, self.epochs = rig, study, epochs
        self.start_time, self.hurried = time.time(), 0.0
        self.folder = study / f"runs/glaucoma/{RUN}/seed1"
        self.comment = f"train glaucoma/{RUN} seed1 ({study})"
        settings = rig.configure(study, "long", **changes)
        self.configfile, self.log = settings, settings.with_suffix(".log")
        self.snakemake = self.start()

    def start(self, *extra: str) -> subprocess.Popen[bytes]:
        """Snakemake for the long training alone."""
        return self.rig.snakemake(
            self.configfile, f"runs/glaucoma/{RUN}/seed1/timing.json", extra=extra
        )

    def job(self) -> dict[str, str] | None:
        """The training's job that is in the queue: its id, state, nodes and time so far."""
        for line in self.rig.ask("squeue", "-h", "-o", "%i|%T|%N|%M|%k").splitlines():
            number, state, nodes, elapsed, comment = line.split("|", 4)
            if comment == self.comment:
                return {"id": number, "state": state, "nodes": nodes, "time": elapsed}
        return None

    def lines(self, pattern: str) -> list[re.Match[str]]:
        """Matches in what the training said in all its turns: SLURM's logs of its jobs."""
        logs = [
            f
            for f in (LOGS / f"glaucoma_{RUN}_seed1").glob("*.log")
            if f.stat().st_mtime > self.start_time
        ]
        logs.sort(key=lambda file: int(file.stem))
        return [
            match
            for file in logs
            for match in re.finditer(pattern, file.read_text(encoding="utf-8"))
        ]

    def trains(self, turns: int, seconds: float = 150) -> int:
        """Wait until a turn (from 1) has saved a checkpoint; return the epoch it began with."""

        def has_started() -> bool:
            assert self.snakemake.poll() is None, tail(self.log)
            self.hurry()
            return len(self.lines(r"training images, global batch")) >= turns

        await_(f"turn {turns} of the training", has_started, seconds)
        since = time.time()
        await_(
            "a checkpoint", lambda: any(f.stat().st_mtime > since for f in self.checkpoints()), 60
        )
        resumptions = self.lines(r"goes on from epoch (\d+), step")
        assert len(resumptions) == turns - 1, "it began from scratch"
        return int(resumptions[-1][1]) if resumptions else 1

    def checkpoints(self) -> list[Path]:
        """Its checkpoints' manifests."""
        return list((self.folder / "checkpoints").glob("*/manifest.json"))

    def hurry(self) -> None:
        """SLURM lets a job that it put back wait for two minutes; here for ten seconds."""
        job = self.job()
        if job is not None and job["state"] == "PENDING" and time.monotonic() - self.hurried > 30:
            self.hurried = time.monotonic()
            command = ["scontrol", "update", f"jobid={job['id']}", "starttime=now+10"]
            subprocess.run(command, env=self.rig.environment, capture_output=True)


@pytest.fixture(scope="module")
def long(rig: Rig, study: Path, local: Path) -> Iterator[Long]:
    training = Long(rig, study, local)
    yield training
    training.snakemake.kill()


@pytest.fixture(scope="module")
def undisturbed_run(rig: Rig, study: Path, long: Long) -> Callable[[], Path]:
    """The same training without SLURM and faults, beside it; a function that waits for it."""
    spec, out = long.folder / "spec.json", rig.folder / "unharmed"
    await_("the long training's plan", spec.exists, 60)
    command = [
        sys.executable,
        str(ROOT / "scripts/train.py"),
        "--spec",
        str(spec),
        "--out",
        str(out),
    ]
    command += [
        "--shards",
        str(study / "data/glaucoma/shards"),
        "--log",
        str(rig.folder / "unharmed.log"),
    ]
    process = subprocess.Popen(command, env=rig.environment, stderr=subprocess.DEVNULL)

    def wait() -> Path:
        assert process.wait(timeout=600) == 0, tail(rig.folder / "unharmed.log")
        return out

    return wait


@pytest.fixture(scope="module")
def complete(study: Path) -> dict[Path, int]:
    """What was complete before the first fault, and when it was written."""
    return {
        file: file.stat().st_mtime_ns
        for file in study.glob("runs/*/*/seed*/*.*")
        if RUN not in str(file)
    }


def test_a_job_is_cancelled(
    long: Long, complete: dict[Path, int], undisturbed_run: object, outcome: list[str]
) -> None:
    long.trains(1)
    first = long.job()
    assert first is not None
    long.rig.ask("scancel", first["id"])
    epoch = long.trains(2)
    second = long.job()
    assert second is not None
    assert second["id"] != first["id"]
    outcome += [
        "a job is cancelled",
        f"Snakemake submits another ({first['id']}, {second['id']}), on from epoch {epoch}",
    ]


def test_a_job_is_preempted(long: Long, outcome: list[str]) -> None:
    before = long.job()
    assert before is not None
    urgent = [
        "--partition=urgent",
        "--account=study",
        "--exclusive",
        f"--nodelist={before['nodes']}",
        "--time=1",
    ]
    number = long.rig.ask("sbatch", "--parsable", "--output=/dev/null", *urgent, "--wrap=sleep 3")
    await_(
        "the urgent job",
        lambda: "COMPLETED" in long.rig.ask("sacct", "-Xnj", number, "-o", "state"),
        90,
    )
    epoch = long.trains(3)
    after = long.job()
    assert after is not None
    assert after["id"] == before["id"]
    outcome += [
        "a job is preempted",
        f"SLURM puts job {after['id']} back into the queue, on from epoch {epoch}",
    ]


def test_a_node_goes_down(long: Long, outcome: list[str]) -> None:
    before = long.job()
    assert before is not None
    node = before["nodes"]
    pid = int((long.rig.folder / f"nodes/{node}.pid").read_text())
    steps = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    stepds = [
        int(line.split()[0])
        for line in steps.splitlines()
        if f"slurmstepd: [{before['id']}." in line
    ]
    for process in [pid, *(child for stepd in stepds for child in [*descendants(stepd), stepd])]:
        os.kill(process, signal.SIGKILL)  # as when the machine loses its power
    long.rig.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    epoch = long.trains(4)
    after = long.job()
    assert after is not None
    assert after["nodes"] != node
    assert after["id"] == before["id"]
    subprocess.run([TOOLS / "up.sh", long.rig.folder], check=True, stdout=subprocess.DEVNULL)
    outcome += [
        "a node goes down",
        f"SLURM puts job {after['id']} back: {node}, then {after['nodes']}, on from epoch {epoch}",
    ]


def test_the_controller_is_started_again(long: Long, outcome: list[str]) -> None:
    before, turns = long.job(), len(long.lines(r"training images, global batch"))
    assert before is not None
    os.kill(int((long.rig.folder / "control/slurmctld.pid").read_text()), signal.SIGTERM)
    time.sleep(8)
    subprocess.run([TOOLS / "up.sh", long.rig.folder], check=True, stdout=subprocess.DEVNULL)
    since = time.time()
    await_("a checkpoint", lambda: any(f.stat().st_mtime > since for f in long.checkpoints()), 60)
    after = long.job()
    assert after is not None
    assert after["id"] == before["id"]
    assert long.snakemake.poll() is None, tail(long.log)
    assert len(long.lines(r"training images, global batch")) == turns
    outcome += ["the controller is started again", f"job {after['id']} trains on, uninterrupted"]


def test_the_time_limit_comes(long: Long, outcome: list[str]) -> None:
    before, turns = long.job(), len(long.lines(r"training images, global batch"))
    assert before is not None
    minutes = int(before["time"].split(":")[-2])
    long.rig.ask("scontrol", "update", f"jobid={before['id']}", f"timelimit={minutes + 2}")
    await_("SIGUSR1", lambda: long.lines(r"stopped by SIGUSR1 .* with a checkpoint"), 150)
    epoch = long.trains(turns + 1)
    after = long.job()
    long.rig.ask("scontrol", "update", f"jobid={before['id']}", "timelimit=30")
    assert after is not None
    assert after["id"] == before["id"]
    log = LOGS / f"glaucoma_{RUN}_seed1" / f"{after['id']}.log"
    assert "goes back into the queue for another turn" in log.read_text(encoding="utf-8")
    outcome += [
        "the time limit comes",
        f"job {after['id']} saves and puts itself back, on from epoch {epoch}",
    ]


def test_snakemake_is_killed_and_started_again(long: Long, outcome: list[str]) -> None:
    before, turns = long.job(), len(long.lines(r"training images, global batch"))
    assert before is not None
    long.snakemake.kill()
    long.snakemake.wait()
    assert long.job() is not None  # nobody sees to it now
    unlock = long.start("--unlock")
    finish(unlock, long.log, 60)
    long.snakemake = long.start()
    epoch = long.trains(turns + 1)
    after = long.job()
    assert after is not None
    assert after["id"] != before["id"]
    assert f"cancelled a job of an earlier Snakemake: {long.comment}" in long.log.read_text(
        encoding="utf-8"
    )
    outcome += [
        "Snakemake is killed, started again",
        f"it ends job {before['id']}, and {after['id']} goes on from epoch {epoch}",
    ]


def test_in_the_end_all_is_as_without_faults(
    long: Long, undisturbed_run: Callable[[], Path], complete: dict[Path, int], outcome: list[str]
) -> None:
    while long.snakemake.poll() is None:  # further turns, where it takes them
        long.hurry()
        time.sleep(1)
    finish(long.snakemake, long.log, 1)
    timing = read_document(long.folder / "timing.json")
    assert timing["epochs"] == long.epochs
    assert timing["restarts"] == len(long.lines(r"goes on from epoch")) >= 5
    epochs = [int(match[1]) for match in long.lines(r"epoch (\d+)/")]
    assert set(epochs) == set(range(1, long.epochs + 1))
    assert (long.folder / "model.safetensors").read_bytes() == (
        undisturbed_run() / "model.safetensors"
    ).read_bytes()
    assert {file: file.stat().st_mtime_ns for file in complete} == complete
    repeated_epochs = len(epochs) - long.epochs
    summary_text = (
        f"{timing['restarts']} restarts, {repeated_epochs} of {long.epochs} epochs twice; "
    )
    summary_text += "equal bit by bit to a run without faults"
    outcome += ["all of it", summary_text]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    process = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout
    return [below for child in process.split() for below in [*descendants(int(child)), int(child)]]
