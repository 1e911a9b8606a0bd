"""The process of one rank: join the others, train, and report a failure."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer
from filelock import FileLock, Timeout

from medscale.base.errors import EXIT_USER, MedscaleError, Stopped, end_quickly
from medscale.base.files import read_json
from medscale.base.log import log, set_up
from medscale.data.shards import Shards
from medscale.engine.parallel.failures import STOPPED, report
from medscale.engine.parallel.join import join
from medscale.engine.parallel.orphan import die_with_parent
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.resolve import resolve
from medscale.engine.train.guard import FailedElsewhere, Watch
from medscale.engine.train.replicate import train
from medscale.engine.train.task import Classification, Task

# Errors of gloo and NCCL on a rank whose peer has ended.
PEER_GONE = re.compile(
    r"Connection (closed|reset|refused)|Timed out|timed out|timeout|Broken pipe|Socket"
    r"|remote process|NCCL|Gloo",
    re.I,
)
MakeTask = Callable[[RunPlan, Shards], Task]
Work = Callable[[RunPlan, Shards, Task, Path, World, Watch], None]


def command(make_task: MakeTask) -> Callable[[Path, Path, Path, Path], None]:
    """Return the command line of a worker that trains a task."""

    def main(
        spec: Path = typer.Option(...),
        shards: Path = typer.Option(...),
        out: Path = typer.Option(...),
        log_file: Path = typer.Option(..., "--log"),
    ) -> None:
        """Train the replicate of the plan in ``spec`` on this rank."""
        run_rank(spec, shards, out, log_file, make_task)

    return main


def run_rank(
    spec: Path,
    shards: Path,
    out: Path,
    log_file: Path,
    make_task: MakeTask,
    work: Work = train,
) -> None:
    """Join the other ranks and do this rank's work; a failure is reported and ends the process.

    Args:
        spec: file of the plan.
        shards: folder of the shard set.
        out: the run folder.
        log_file: log that rank 0 writes.
        make_task: return the task for the plan and the opened shard set.
        work: train the task; profiling replaces it.
    """
    die_with_parent()
    end_quickly()
    watch = Watch()
    watch.install()
    rank = int(os.environ["RANK"])
    set_up(log_file, quiet=rank != 0)
    if rank != 0:
        log.setLevel(logging.WARNING)
    try:
        plan = RunPlan.model_validate(read_json(spec))
        with locked(out, alone=rank == 0), join(plan) as world:
            shard_set = Shards.open(shards)
            plan = _resolved(plan, shard_set)
            work(plan, shard_set, make_task(plan, shard_set), out, world, watch)
    except BaseException as error:
        sys.exit(_report(error, rank))


def _resolved(plan: RunPlan, shards: Shards) -> RunPlan:
    """Return the plan with the settings that depend on the training images."""
    labels = shards.labels[shards.positions("train")]
    return resolve(plan, np.bincount(labels, minlength=len(shards.classes)))


@contextmanager
def locked(out: Path, *, alone: bool) -> Iterator[None]:
    """Hold a lock on the run folder; the system releases it if the process is killed.

    Raises MedscaleError when another process holds it, naming that process.

    Args:
        out: the run folder.
        alone: whether this rank takes the lock; only rank 0 does.
    """
    if not alone:
        yield
        return
    folder = out / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    owner, lock = folder / "owner.json", FileLock(folder / "lock")
    try:
        lock.acquire(timeout=2)
    except Timeout:
        holder = {"pid": "?", "host": "?"}
        if owner.is_file():
            holder = json.loads(owner.read_text(encoding="utf-8"))
        raise MedscaleError(
            f"{out} is being trained by process {holder['pid']} on {holder['host']}; "
            "wait for it, or end it first"
        ) from None
    identity = {"pid": os.getpid(), "host": socket.gethostname()}
    owner.write_text(json.dumps(identity), encoding="utf-8")
    try:
        yield
    finally:
        lock.release()


def _report(error: BaseException, rank: int) -> int:
    """Write down why this rank ends; return its exit status."""
    stopped = isinstance(error, Stopped)
    consequence = isinstance(error, FailedElsewhere) or (
        isinstance(error, RuntimeError) and PEER_GONE.search(str(error)) is not None
    )
    report(error, rank, stopped=stopped, consequence=consequence)
    if not isinstance(error, MedscaleError | SystemExit | KeyboardInterrupt) and not consequence:
        log.error("rank %d: a bug or a fault of the system", rank, exc_info=error)
    return STOPPED if stopped else EXIT_USER if isinstance(error, MedscaleError) else 1


if __name__ == "__main__":
    typer.run(command(Classification))
