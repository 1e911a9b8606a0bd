"""The process of one rank: join the others, train, and report a failure."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import typer
from filelock import FileLock, Timeout

from medscale.base.errors import EXIT_USER, MedscaleError, Stopped, end_quickly, storage_fault
from medscale.base.files import read_json, write_json
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

if TYPE_CHECKING:
    import torch

# Errors of gloo and NCCL on a rank whose peer has ended.
PEER_GONE = re.compile(
    r"Connection (closed|reset|refused)|Timed out|timed out|timeout|Broken pipe|Socket"
    r"|remote process|NCCL|Gloo",
    re.I,
)
TAKE_OVER_S = 20  # for the system to end a killed process and release its lock
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
    spec: Path, shards: Path, out: Path, log_file: Path, make_task: MakeTask, work: Work = train
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
            shard_set = Shards.open(shards).of_fold(plan.fold)
            plan = _resolved(plan, shard_set, world.device)
            work(plan, shard_set, make_task(plan, shard_set), out, world, watch)
    except BaseException as error:
        sys.exit(_report(error, rank))


def _resolved(plan: RunPlan, shards: Shards, device: torch.device) -> RunPlan:
    """Return the plan with the settings that depend on the training images."""
    labels = shards.labels[shards.positions("train")]
    counts = np.bincount(labels, minlength=len(shards.classes))
    return resolve(plan, counts, shards.shape[0], device)


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
    if not _acquire(lock, 2):
        holder = read_json(owner) if owner.is_file() else {"pid": "?", "host": "?"}
        # Another container can have this host's name, and processes that are not seen from here.
        if not (_end_orphan(holder) and _acquire(lock, TAKE_OVER_S)):
            raise MedscaleError(
                f"{out} is being trained by process {holder['pid']} on {holder['host']}; "
                "wait for it, or end it first"
            )
        log.warning("took the run over from process %s, whose launcher is gone", holder["pid"])
    identity = {
        "host": socket.gethostname(),
        "launcher": os.getppid(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }
    write_json(owner, identity)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, seconds: float) -> bool:
    """Return whether a lock was acquired within some seconds."""
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _end_orphan(holder: dict[str, Any]) -> bool:
    """End the process that holds a run if it is on this machine and its launcher is gone."""
    if holder["host"] != socket.gethostname() or "launcher" not in holder:
        return False
    if psutil.pid_exists(holder["launcher"]):
        return False
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(holder["pid"])
        if process.create_time() == holder["started"]:  # and no later process of the same number
            process.kill()
    return True


def _report(error: BaseException, rank: int) -> int:
    """Write down why this rank ends; return its exit status."""
    stopped = isinstance(error, Stopped)
    consequence = isinstance(error, FailedElsewhere) or (
        isinstance(error, RuntimeError) and PEER_GONE.search(str(error)) is not None
    )
    report(error, rank, stopped=stopped, consequence=consequence)
    of_user = isinstance(error, MedscaleError) or storage_fault(error) is not None
    if not of_user and not consequence and not isinstance(error, SystemExit | KeyboardInterrupt):
        log.error("rank %d: a bug or a fault of the system", rank, exc_info=error)
    return STOPPED if stopped else EXIT_USER if of_user else 1


if __name__ == "__main__":
    typer.run(command(Classification))
