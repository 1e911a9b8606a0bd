"""Start a run's processes through torchrun's launcher, pass signals on, and say in one message why a run ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from medscale.base.errors import MedscaleError, Stopped
from medscale.engine.parallel.rendezvous import meeting_point
from medscale.engine.plan import RunPlan
from medscale.resources import cards

STOPPED = 75  # EX_TEMPFAIL: stopped in order with a checkpoint; the same command goes on
ANOTHER_TURN = "MEDSCALE_ANOTHER_TURN"  # names a file that asks the job for another turn; profiles/slurm/job.sh
GRACE_S = 10  # after a rank failed, the others get this long before they are killed
# Without these glibc gives large tensors back to the system, and their pages are zeroed anew in each step: up to a
# tenth of the time.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
}


@dataclass(frozen=True)
class Failure:
    """Why one rank ended, as it wrote it down itself."""

    rank: int
    message: str
    time: float
    stopped: bool
    consequence: bool


def launch(plan: RunPlan, module: str, arguments: list[str], rendezvous: str | None = None) -> None:
    """Run ``python -m module arguments`` once a device, as torchrun does, and wait for all of them.

    Args:
        plan: the run; it says how many processes and nodes there are.
        module: dotted name of the worker's module.
        arguments: its command line.
        rendezvous: ``host:port`` where the nodes of a run over several nodes meet; it is called once a node. In a SLURM
            job step it is worked out.

    Raises:
        Stopped: when the ranks stopped in order at a signal or time limit.
        MedscaleError: naming the rank that failed first and its error.
    """
    if plan.nodes > 1:
        rendezvous = rendezvous or meeting_point(os.environ)
    if plan.nodes > 1 and rendezvous is None:
        raise MedscaleError(
            f"{plan.run.name} runs on {plan.nodes} nodes: start it once on each, with --rendezvous HOST:PORT of one, "
            "or by srun"
        )
    with _devices(plan), tempfile.TemporaryDirectory(prefix="medscale-") as scratch:
        os.environ |= _environment(plan, Path(scratch))
        config = LaunchConfig(
            min_nodes=plan.nodes,
            max_nodes=plan.nodes,
            nproc_per_node=plan.procs_per_node,
            run_id=f"{plan.study}-{plan.run.name}-{plan.seed}"
            if plan.nodes > 1
            else uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=rendezvous or "localhost:0",
            rdzv_configs={"timeout": 600},
            local_addr="localhost" if plan.nodes == 1 else None,
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
        )
        if hasattr(
            config, "signals_to_handle"
        ):  # younger than torch 2.11; there the environment says it
            config.signals_to_handle = os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"]
        logging.getLogger("torch.distributed").setLevel(
            logging.CRITICAL
        )  # its reports are told here, shorter
        received: set[int] = set()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, partial(_pass_on, received))
        threading.Thread(target=_reap, args=(Path(scratch),), daemon=True).start()
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except ChildFailedError as error:
            told = _explained(plan, Path(scratch), error.failures)
            if (
                isinstance(told, Stopped)
                and signal.SIGINT not in received
                and ANOTHER_TURN in os.environ
            ):
                Path(os.environ[ANOTHER_TURN]).touch()
            raise told from None
        except SignalException as error:
            raise _explained(plan, Path(scratch), {}, f"ended by {error.sigval.name}") from None


def report(error: BaseException, rank: int, *, stopped: bool, consequence: bool) -> None:
    """Write down, in a rank that fails, why: the launcher reads it when all have ended."""
    folder = os.environ.get("MEDSCALE_FAILURES")
    if folder is None:
        return
    text = str(error) if isinstance(error, MedscaleError) else f"{type(error).__name__}: {error}"
    entry = {
        "rank": rank,
        "message": text,
        "time": time.time(),
        "stopped": stopped,
        "consequence": consequence,
    }
    Path(folder, f"rank{rank}.json").write_text(json.dumps(entry), encoding="utf-8")


@contextmanager
def _devices(plan: RunPlan) -> Iterator[None]:
    """Give this process and its ranks cards that no other run on this machine uses, and the cores that go with them."""
    if plan.backend != "cuda":
        yield
        return
    pool = cards.visible()
    with cards.lease(plan.run.name, plan.procs_per_node, pool) as mine:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        os.sched_setaffinity(0, cards.cores(mine, pool, sorted(os.sched_getaffinity(0))))
        yield


def _environment(plan: RunPlan, scratch: Path) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0))
    threads = 1 if plan.backend == "cpu" else max(1, cores // plan.procs_per_node)
    return {
        **(KEEP_MEMORY if plan.backend == "cpu" else {}),
        "MEDSCALE_FAILURES": str(scratch),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_S),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGHUP,SIGQUIT",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONUNBUFFERED": "1",
    }


def _pass_on(received: set[int], number: int, _frame: Any) -> None:
    received.add(number)
    for child in _ranks():
        with suppress(psutil.Error):  # it has just ended
            child.send_signal(number)


def _reap(scratch: Path) -> None:
    """Kill the ranks that are left a while after the first has written down why it ends: they may be stuck."""
    while scratch.exists():
        times = [
            f.stat().st_mtime
            for f in (*scratch.glob("rank*.json"), *scratch.glob("hang*.txt"))
            if f.stat().st_size
        ]
        if times and time.time() - min(times) > GRACE_S:
            for child in _ranks():
                with suppress(psutil.Error):
                    Path(scratch, f"killed{child.pid}").touch()
                    child.kill()
        time.sleep(0.5)


def _ranks() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # a zombie has no command line
            found += [child] if "-m" in child.cmdline() else []
    return found


def _explained(
    plan: RunPlan, scratch: Path, failures: dict[int, Any], otherwise: str = ""
) -> MedscaleError:
    """One message: the rank that failed first by its own doing, and what it said."""
    told = [
        Failure(**json.loads(file.read_text(encoding="utf-8")))
        for file in scratch.glob("rank*.json")
    ]
    told.sort(key=lambda failure: failure.time)
    if told and all(failure.stopped for failure in told):
        return Stopped(f"{plan.run.name}: {told[0].message}")
    causes = [
        f"rank {t.rank} failed: {t.message}" for t in told if not (t.consequence or t.stopped)
    ]
    causes += _hung(scratch) + _silent(plan, scratch, failures, {t.rank for t in told})
    here = range(plan.procs_per_node) if plan.nodes == 1 else ()
    missing = [str(rank) for rank in here if rank not in {t.rank for t in told}]
    if told and missing:
        causes.append(_no_answer(", ".join(missing), plan))
    causes += [f"rank {t.rank} failed: {t.message}" for t in told]
    return MedscaleError(
        f"{plan.run.name}: {causes[0] if causes else otherwise or 'its processes ended without a word'}"
    )


def _hung(scratch: Path) -> list[str]:
    """Ranks whose watchdog ended them, with the innermost line of their stack."""
    found = []
    for file in sorted(
        scratch.glob("hang*.txt"), key=lambda file: int(file.stem.removeprefix("hang"))
    ):
        stack = [
            line.strip()
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.startswith("  File")
        ]
        if stack:
            rank = file.stem.removeprefix("hang")
            found.append(
                f"rank {rank} did not finish a step in time and was ended; it was at {_innermost(file)}"
            )
    return found


def _innermost(file: Path) -> str:
    """The most recent call of the main thread in a stack that faulthandler wrote."""
    main = file.read_text(encoding="utf-8").rpartition("most recent call first")[2].splitlines()[1:]
    return "; ".join(line.strip() for line in main[:2])


def _no_answer(ranks: str, plan: RunPlan) -> str:
    return f"rank {ranks} did not answer for {plan.parallel.timeout_s:g} s and was ended"


def _silent(plan: RunPlan, scratch: Path, failures: dict[int, Any], told: set[int]) -> list[str]:
    """Ranks that ended without writing down why, the first one first."""
    lines = []
    for rank, failure in sorted(failures.items(), key=lambda item: item[1].timestamp):
        if rank in told:
            continue
        if (scratch / f"killed{failure.pid}").exists():
            lines.append(_no_answer(str(rank), plan))
        elif failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            hint = (
                " (the system's out-of-memory killer does that: use a smaller batch)"
                if name == "SIGKILL"
                else ""
            )
            lines.append(f"rank {rank} was ended by {name}{hint}; its checkpoints are kept")
        else:
            lines.append(f"rank {rank} ended with exit status {failure.exitcode}")
    return lines
