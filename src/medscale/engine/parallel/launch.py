"""Start a run's processes, watch them, and forward signals to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from medscale.base.errors import MedscaleError, Stopped
from medscale.base.limits import usable_cores
from medscale.base.scratch import scratch
from medscale.engine.parallel.failures import FOLDER, End, explain
from medscale.engine.parallel.orphan import LAUNCHER
from medscale.engine.parallel.rendezvous import STORE, meeting_point, node_number, place
from medscale.engine.plan import RunPlan

# Names a file that a stopped run touches to ask its SLURM job for another turn
# (profiles/slurm/job.sh).
ANOTHER_TURN = "MEDSCALE_ANOTHER_TURN"
GRACE_S = 10  # time for other ranks to end by themselves after one failed
END_S = 30  # time for ranks to end after SIGTERM, in which they may write
POLL_S = 0.1
ENDING = (signal.SIGHUP, signal.SIGQUIT)  # signals that end a run without a checkpoint
SCRATCH = "medscale-run-"
# By default glibc returns the memory of large tensors to the system, and their pages are zeroed
# again in every step, which takes up to a tenth of the time.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
}
# NCCL's own watchdog does not look at collectives within CUDA graphs; PyTorch's rules for capture
# turn it off. A rank that hangs is ended by ``train.guard.Watchdog``.
CAPTURED_COLLECTIVES = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}
Reserve = Callable[[str, int], AbstractContextManager[None]]


class _Hangup(Exception):
    """The launcher got a signal that ends the run without a checkpoint."""


def launch(
    plan: RunPlan,
    module: str,
    options: Mapping[str, object],
    reserve: Reserve,
    rendezvous: str | None = None,
    node: int | None = None,
) -> None:
    """Run ``python -m module`` once per device of this node, and wait for all.

    Args:
        plan: the run, which decides the number of processes and nodes.
        module: dotted name of the worker's module.
        options: command line of the worker, by option.
        reserve: hold GPUs of this machine; called with the run's name and the number of GPUs.
        rendezvous: ``host:port`` where the nodes of a run over several nodes meet; the function is
            then called once per node. In a SLURM job step the address is derived.
        node: number of this node, from 0, which is the one of ``rendezvous``; derived likewise.

    Raises:
        Stopped: when the ranks stopped in order at a signal or time limit.
        MedscaleError: naming the rank that failed first, and its error.
    """
    meeting, node = ({}, 0) if plan.nodes == 1 else _meeting(plan, rendezvous, node)
    cuda = plan.backend == "cuda"
    devices = reserve(plan.run.name, plan.procs_per_node) if cuda else nullcontext()
    command = [sys.executable, "-m", "medscale.engine.parallel.orphan", module]
    command += [str(part) for option in options.items() for part in option]
    with devices, scratch(SCRATCH) as folder:
        # Only this user can enter the folder, so that no other user can write to the store.
        meeting = meeting or {STORE: str(folder / "store")}
        _run_ranks(plan, command, folder, meeting, node * plan.procs_per_node)


def _meeting(plan: RunPlan, rendezvous: str | None, node: int | None) -> tuple[dict[str, str], int]:
    """Return the variables of the place where several nodes meet, and the number of this node."""
    rendezvous = rendezvous or meeting_point(os.environ)
    node = node_number(os.environ) if node is None else node
    if rendezvous is None or node is None:
        raise MedscaleError(
            f"{plan.run.name} runs on {plan.nodes} nodes: start it once on each, with "
            "--rendezvous HOST:PORT of the first and --node 0, 1, …, or by srun; or train "
            f"{plan.run.model_copy(update={'devices': plan.procs_per_node}).name} on one"
        )
    if not 0 <= node < plan.nodes:
        raise MedscaleError(
            f"{plan.run.name} runs on {plan.nodes} nodes, which have the numbers 0 to "
            f"{plan.nodes - 1}, and this one was started as number {node}: give --node such a "
            "number, or start one task a node (srun --ntasks-per-node=1)"
        )
    return place(rendezvous), node


def _run_ranks(
    plan: RunPlan, command: list[str], scratch: Path, meeting: dict[str, str], first: int
) -> None:
    """Run a command once per device; ``scratch`` takes the ranks' reports, ``first`` is a rank."""
    received: set[int] = set()
    threading.Thread(target=_kill_stuck_ranks, args=(scratch,), daemon=True).start()
    environment = {**os.environ, **_environment(plan, scratch), **meeting}
    ranks: dict[int, subprocess.Popen[bytes]] = {}
    handlers = _handle_signals(received)
    try:
        for local in range(plan.procs_per_node):
            own = _rank_environment(plan, first + local, local)
            ranks[first + local] = subprocess.Popen(
                command, env=environment | own, start_new_session=True
            )
        ends = _await(ranks)
    except _Hangup as error:
        _end(ranks)
        raise explain(plan, scratch, {}, f"ended by {error}") from None
    finally:  # so that Ctrl-C ends the caller again
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if any(end.exitcode for end in ends.values()):
        failed = {rank: end for rank, end in ends.items() if end.exitcode}
        failure = explain(plan, scratch, failed)
        # After Ctrl-C (SIGINT) a person does not want the job to be started again.
        if isinstance(failure, Stopped) and signal.SIGINT not in received:
            _ask_for_another_turn()
        raise failure


def _handle_signals(received: set[int]) -> dict[int, Any]:
    """Forward signals to the ranks, or end them; return the handlers before, by signal.

    ``received`` takes the numbers of forwarded signals.
    """
    forwarded = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    return {
        **{number: signal.signal(number, partial(_forward, received)) for number in forwarded},
        **{number: signal.signal(number, _hang_up) for number in ENDING},
    }


def _await(ranks: Mapping[int, subprocess.Popen[bytes]]) -> dict[int, End]:
    """Wait until all ranks have ended; after a failure, end those that are left."""
    ends: dict[int, End] = {}
    limit = 0.0
    while len(ends) < len(ranks):
        for rank, process in ranks.items():
            if rank not in ends and process.poll() is not None:
                ends[rank] = End(process.pid, process.returncode, time.time())
        if not limit and any(end.exitcode for end in ends.values()):
            limit = time.monotonic() + END_S
            _signal(ranks, signal.SIGTERM)
        elif limit and time.monotonic() > limit:
            _signal(ranks, signal.SIGKILL)
        time.sleep(POLL_S)
    return ends


def _end(ranks: Mapping[int, subprocess.Popen[bytes]]) -> None:
    """End all ranks: by SIGTERM, and after GRACE_S by SIGKILL."""
    _signal(ranks, signal.SIGTERM)
    limit = time.monotonic() + GRACE_S
    for process in ranks.values():
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, limit - time.monotonic()))
    _signal(ranks, signal.SIGKILL)


def _signal(ranks: Mapping[int, subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in ranks.values():
        process.send_signal(number)  # does nothing for a process that was waited for


def _rank_environment(plan: RunPlan, rank: int, local: int) -> dict[str, str]:
    """Return a rank's place among the processes, in the variables that PyTorch's tools use."""
    numbers = {
        "RANK": rank,
        "WORLD_SIZE": plan.processes,
        "LOCAL_RANK": local,
        "LOCAL_WORLD_SIZE": plan.procs_per_node,
    }
    return {name: str(number) for name, number in numbers.items()}


def _environment(plan: RunPlan, scratch: Path) -> dict[str, str]:
    """Return the environment variables of the ranks."""
    cores = usable_cores()
    threads = 1 if plan.backend == "cpu" else max(1, cores // plan.procs_per_node)
    return {
        **(KEEP_MEMORY if plan.backend == "cpu" else CAPTURED_COLLECTIVES),
        FOLDER: str(scratch),
        LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # for deterministic matrix products
        "PYTHONUNBUFFERED": "1",
    }


def _ask_for_another_turn() -> None:
    if ANOTHER_TURN in os.environ:
        Path(os.environ[ANOTHER_TURN]).touch()


def _forward(received: set[int], number: int, _frame: Any) -> None:
    """Handle a signal: forward it to all ranks."""
    received.add(number)
    for rank in _ranks():
        with suppress(psutil.Error):  # the rank has just ended
            rank.send_signal(number)


def _hang_up(number: int, _frame: Any) -> None:
    # A closed terminal sends two, its own and the shell's; the second must not disturb the end.
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise _Hangup(signal.Signals(number).name)


def _kill_stuck_ranks(scratch: Path) -> None:
    """Kill all ranks GRACE_S after the first one reported a failure: others may be stuck."""
    noticed: float | None = None  # time of the first report; the system's clock can be set back
    while scratch.exists():
        reports = (*scratch.glob("rank*.json"), *scratch.glob("hang*.txt"))
        if noticed is None and any(file.stat().st_size for file in reports):
            noticed = time.monotonic()
        if noticed is not None and time.monotonic() - noticed > GRACE_S:
            for rank in _ranks():
                with suppress(psutil.Error):
                    Path(scratch, f"killed{rank.pid}").touch()
                    rank.kill()
        time.sleep(0.5)


def _ranks() -> list[psutil.Process]:
    """Return the processes of the ranks, which are this process's children."""
    ranks = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # a zombie has no command line
            ranks += [child] if "-m" in child.cmdline() else []
    return ranks
