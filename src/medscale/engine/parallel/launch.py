"""Start a run's processes through torchrun's launcher, and forward signals to them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from medscale.base.errors import MedscaleError, Stopped
from medscale.engine.parallel.failures import FOLDER, explain
from medscale.engine.parallel.rendezvous import meeting_point
from medscale.engine.plan import RunPlan

# Names a file that a stopped run touches to ask its SLURM job for another turn
# (profiles/slurm/job.sh).
ANOTHER_TURN = "MEDSCALE_ANOTHER_TURN"
GRACE_S = 10  # time for other ranks to end by themselves after one failed
# By default glibc returns the memory of large tensors to the system, and their pages are zeroed
# again in every step, which takes up to a tenth of the time.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
}
Reserve = Callable[[str, int], AbstractContextManager[None]]


def launch(
    plan: RunPlan,
    module: str,
    options: Mapping[str, object],
    reserve: Reserve,
    rendezvous: str | None = None,
) -> None:
    """Run ``python -m module`` once per device, as torchrun does, and wait for all.

    Args:
        plan: the run, which decides the number of processes and nodes.
        module: dotted name of the worker's module.
        options: command line of the worker, by option.
        reserve: hold GPUs of this machine; called with the run's name and the number of GPUs.
        rendezvous: ``host:port`` where the nodes of a run over several nodes meet; the function is
            then called once per node. In a SLURM job step the address is derived.

    Raises:
        Stopped: when the ranks stopped in order at a signal or time limit.
        MedscaleError: naming the rank that failed first, and its error.
    """
    if plan.nodes > 1:
        rendezvous = rendezvous or meeting_point(os.environ)
        if rendezvous is None:
            raise MedscaleError(
                f"{plan.run.name} runs on {plan.nodes} nodes: start it once on each, with "
                "--rendezvous HOST:PORT of one, or by srun"
            )
    cuda = plan.backend == "cuda"
    devices = reserve(plan.run.name, plan.procs_per_node) if cuda else nullcontext()
    command = ["-m", module, *(str(part) for option in options.items() for part in option)]
    with devices, tempfile.TemporaryDirectory(prefix="medscale-") as scratch:
        _run_ranks(plan, command, Path(scratch), rendezvous)


def _run_ranks(plan: RunPlan, command: list[str], scratch: Path, rendezvous: str | None) -> None:
    """Run Python with a command line once per device; ``scratch`` takes the ranks' reports."""
    os.environ |= _environment(plan, scratch)
    config = _launch_config(plan, scratch, rendezvous)
    # A short message is derived from the ranks' reports; torchrun's own would be a page.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    received: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, partial(_forward, received))
    threading.Thread(target=_kill_stuck_ranks, args=(scratch,), daemon=True).start()
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        failure = explain(plan, scratch, error.failures)
        # After Ctrl-C (SIGINT) a person does not want the job to be started again.
        if isinstance(failure, Stopped) and signal.SIGINT not in received:
            _ask_for_another_turn()
        raise failure from None
    except SignalException as error:
        raise explain(plan, scratch, {}, f"ended by {error.sigval.name}") from None


def _launch_config(plan: RunPlan, scratch: Path, rendezvous: str | None) -> LaunchConfig:
    several = plan.nodes > 1
    config = LaunchConfig(
        min_nodes=plan.nodes,
        max_nodes=plan.nodes,
        nproc_per_node=plan.procs_per_node,
        # All nodes must use the same id; on one node it must differ from that of other runs.
        run_id=f"{plan.study}-{plan.run.name}-{plan.seed}" if several else uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        rdzv_configs={"timeout": 600},
        local_addr=None if several else "localhost",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=str(scratch)),
    )
    if hasattr(config, "signals_to_handle"):  # before torch 2.11 the environment variable does it
        config.signals_to_handle = os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"]
    return config


def _environment(plan: RunPlan, scratch: Path) -> dict[str, str]:
    """Return the environment variables of the ranks."""
    cores = len(os.sched_getaffinity(0))
    threads = 1 if plan.backend == "cpu" else max(1, cores // plan.procs_per_node)
    return {
        **(KEEP_MEMORY if plan.backend == "cpu" else {}),
        FOLDER: str(scratch),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_S),
        # Other signals are forwarded to the ranks, which save a checkpoint.
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGHUP,SIGQUIT",
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


def _kill_stuck_ranks(scratch: Path) -> None:
    """Kill all ranks GRACE_S after the first one reported a failure: others may be stuck."""
    while scratch.exists():
        times = [
            file.stat().st_mtime
            for file in (*scratch.glob("rank*.json"), *scratch.glob("hang*.txt"))
            if file.stat().st_size
        ]
        if times and time.time() - min(times) > GRACE_S:
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
