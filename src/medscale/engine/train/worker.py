"""What torchrun starts once a device: joins the world, trains, and writes down why it fails, if it does."""

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

import typer
from filelock import FileLock, Timeout

from medscale.base.errors import EXIT_USER, MedscaleError, Stopped, end_quickly
from medscale.base.files import read_json
from medscale.base.log import log, set_up
from medscale.data.shards import Shards
from medscale.engine.parallel.launch import STOPPED, report
from medscale.engine.parallel.orphan import die_with_parent
from medscale.engine.parallel.world import World, join
from medscale.engine.plan import RunPlan
from medscale.engine.train.guard import Elsewhere, Watch
from medscale.engine.train.replicate import train
from medscale.engine.train.task import Classification, Task

# What the peers of a rank that is gone see, from gloo and NCCL.
PEER_GONE = re.compile(
    r"Connection (closed|reset|refused)|Timed out|timed out|timeout|Broken pipe|Socket|remote process|NCCL|Gloo",
    re.I,
)


def main(
    spec: Path = typer.Option(...),
    shards: Path = typer.Option(...),
    out: Path = typer.Option(...),
    log_file: Path = typer.Option(..., "--log"),
) -> None:
    """Carry out the plan of a classification in ``spec`` on this rank."""
    carry_out(spec, shards, out, log_file, Classification)


def carry_out(
    spec: Path,
    shards: Path,
    out: Path,
    log_file: Path,
    task: Callable[[RunPlan, Shards], Task],
    what: Callable[[RunPlan, Shards, Task, Path, World, Watch], None] = train,
) -> None:
    """Train what ``task`` makes of the plan and the shards, on this rank, or do ``what`` else; a failure ends it."""
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
            opened = Shards.open(shards)
            what(plan, opened, task(plan, opened), out, world, watch)
    except BaseException as error:
        sys.exit(_end(error, rank))


@contextmanager
def locked(out: Path, *, alone: bool) -> Iterator[None]:
    """Hold a run folder while rank 0 lives; the system lets go of it when it is killed.

    Raises:
        MedscaleError: when another process has it, saying which.
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
        other = (
            json.loads(owner.read_text(encoding="utf-8"))
            if owner.is_file()
            else {"pid": "?", "host": "?"}
        )
        raise MedscaleError(
            f"{out} is being trained by process {other['pid']} on {other['host']}; wait for it, or end it first"
        ) from None
    owner.write_text(
        json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8"
    )
    try:
        yield
    finally:
        lock.release()


def _end(error: BaseException, rank: int) -> int:
    """Tell why this rank ends, and give its exit status."""
    stopped = isinstance(error, Stopped)
    consequence = isinstance(error, Elsewhere) or (
        isinstance(error, RuntimeError) and PEER_GONE.search(str(error)) is not None
    )
    report(error, rank, stopped=stopped, consequence=consequence)
    if not isinstance(error, MedscaleError | SystemExit | KeyboardInterrupt) and not consequence:
        log.error("rank %d: a bug or a fault of the system", rank, exc_info=error)
    return STOPPED if stopped else EXIT_USER if isinstance(error, MedscaleError) else 1


if __name__ == "__main__":
    typer.run(main)
