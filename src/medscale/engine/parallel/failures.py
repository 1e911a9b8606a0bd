"""Why a run ended: each rank that fails writes a report, and the launcher makes one message."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from medscale.base.errors import MedscaleError, Stopped, storage_fault
from medscale.base.files import read_json, write_json
from medscale.base.log import log
from medscale.engine.plan import RunPlan

FOLDER = "MEDSCALE_FAILURES"  # environment variable with the folder of the reports
STOPPED = 75  # exit status EX_TEMPFAIL: stopped with a checkpoint, the same command continues
LOSS_NOT_FINITE = "the loss is not finite"  # in messages, by which the launcher knows the cause


@dataclass(frozen=True)
class Failure:
    """A rank's report of why it ended."""

    rank: int  # number of the rank
    message: str  # the error
    time: float  # when it was written, seconds since the epoch
    stopped: bool  # whether the rank stopped in order, with a checkpoint
    consequence: bool  # whether the error follows from the failure of another rank


@dataclass(frozen=True)
class End:
    """How the process of a rank ended."""

    pid: int  # its process id
    exitcode: int  # its exit status; of a process ended by a signal, the signal's negative number
    timestamp: float  # when the launcher noticed, seconds since the epoch


def report(error: BaseException, rank: int, *, stopped: bool, consequence: bool) -> None:
    """Write down, in a rank that fails, why; the launcher reads it after all ranks have ended.

    If that is not possible, as on a full disk, the log of the run has the error.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    text = str(error)
    if not isinstance(error, MedscaleError):
        text = storage_fault(error) or f"{type(error).__name__}: {error}"
    failure = Failure(rank, text, time.time(), stopped, consequence)
    try:
        write_json(Path(folder, f"rank{rank}.json"), asdict(failure))
    except MedscaleError as unwritten:
        log.error("rank %d failed: %s (%s)", rank, text, unwritten)


def explain(
    plan: RunPlan, scratch: Path, exits: dict[int, End], otherwise: str = ""
) -> MedscaleError:
    """Return one error that names the rank that failed first by its own fault, and its message.

    Args:
        scratch: folder with the ranks' reports.
        exits: how a rank's process ended, by rank.
        otherwise: the message if no rank left a trace.
    """
    reports = [Failure(**read_json(file)) for file in scratch.glob("rank*.json")]
    reports.sort(key=lambda failure: failure.time)
    if reports and all(failure.stopped for failure in reports):
        return Stopped(f"{plan.run.name}: {reports[0].message}")
    reported = {failure.rank for failure in reports}
    causes = [_failed(f) for f in reports if not (f.consequence or f.stopped)]
    causes += _hung(scratch)
    causes += _ended_without_report(plan, scratch, exits, reported)
    local_ranks = range(plan.procs_per_node) if plan.nodes == 1 else ()
    missing = [str(rank) for rank in local_ranks if rank not in reported]
    if reports and missing:
        causes.append(_no_answer(", ".join(missing), plan))
    causes += map(_failed, reports)
    causes += [otherwise or "its processes ended without a message"]
    return MedscaleError(f"{plan.run.name}: {causes[0]}")


def _failed(failure: Failure) -> str:
    return f"rank {failure.rank} failed: {failure.message}"


def _no_answer(ranks: str, plan: RunPlan) -> str:
    return f"rank {ranks} did not answer for {plan.parallel.timeout_s:g} s and was ended"


def _hung(scratch: Path) -> list[str]:
    """Describe ranks that their watchdog ended, with the innermost lines of their stack."""
    stacks = {
        int(file.stem.removeprefix("hang")): file.read_text(encoding="utf-8")
        for file in scratch.glob("hang*.txt")
    }
    return [
        f"rank {rank} did not finish a step in time and was ended; it was at {_innermost(stack)}"
        for rank, stack in sorted(stacks.items())
        if "  File" in stack
    ]


def _innermost(stack: str) -> str:
    """Return the two most recent calls of the main thread in a stack written by faulthandler."""
    main = stack.rpartition("most recent call first")[2].splitlines()[1:]
    return "; ".join(line.strip() for line in main[:2])


def _ended_without_report(
    plan: RunPlan, scratch: Path, exits: dict[int, End], reported: set[int]
) -> list[str]:
    """Describe ranks that ended without a report, the first one first."""
    causes = []
    for rank, end in sorted(exits.items(), key=lambda item: item[1].timestamp):
        if rank in reported:
            continue
        if (scratch / f"killed{end.pid}").exists():
            causes.append(_no_answer(str(rank), plan))
        elif end.exitcode < 0:
            name = signal.Signals(-end.exitcode).name
            memory = " (the system's out-of-memory killer does that: use a smaller batch)"
            hint = memory if name == "SIGKILL" else ""
            causes.append(f"rank {rank} was ended by {name}{hint}; its checkpoints are kept")
        else:
            causes.append(f"rank {rank} ended with exit status {end.exitcode}")
    return causes
