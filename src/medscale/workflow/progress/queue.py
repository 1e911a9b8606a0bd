"""Watch of SLURM's queue: the jobs of a study that wait in it, and the starts of the others."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from medscale.base.errors import MedscaleError
from medscale.resources.slurm import seconds_of
from medscale.workflow.progress.state import State

if TYPE_CHECKING:
    from medscale.resources.slurm import QueuedJob

EVERY_S = 30.0
# Snakemake's executor asks for its jobs at least every 3 minutes. A job that has been out of the
# queue for twice as long has ended, but the executor never learns how: SLURM forgot the job before
# the executor asked (MinJobAge), or its state is one that the executor does not understand.
UNNOTICED_S = 400.0
# Reasons of squeue that end only when settings of the job or of the cluster are changed.
ENDLESS = re.compile(
    r"Partition(Config|TimeLimit|NodeLimit|Down|Inactive)|BadConstraints|JobHeld|held|"
    r"(Account|QOS|Qos)NotAllowed|Invalid(Account|QOS|Qos)|"
    r"(Assoc|QOS)Max\w+Per(Job|Node)(Limit)?"
)
# Long reasons of squeue in short.
SHORT = {
    "Nodes required for job are DOWN": "nodes are down, drained or reserved (sinfo -R)",
    "ReqNodeNotAvail": "nodes are down, drained or reserved (sinfo -R)",
}


class Watch:
    """A thread that asks for the queue twice a minute and records the waiting jobs in a state.

    Args:
        state: the state of the study.
        ask: returns the queued jobs; may raise MedscaleError when SLURM does not answer.
        say: shows a line; called once for each job that will not start by itself.
    """

    def __init__(
        self, state: State, ask: Callable[[], list[QueuedJob]], say: Callable[[str], None]
    ) -> None:
        self._state, self._ask, self._say = state, ask, say
        self._printed_lines: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            try:
                queued = self._ask()
            except MedscaleError:  # Snakemake's executor repeats its queries and warns by itself
                continue
            for text in note(self._state, queued, time.time()):
                if text not in self._printed_lines and not self._end.is_set():
                    self._printed_lines.add(text)
                    self._say(text)
            self._state.write()


def note(state: State, queued: Iterable[QueuedJob], now: float) -> list[str]:
    """Record the waiting jobs and the starts of the running ones in a state.

    Return a sentence for each job that will not start by itself, or whose end stays unnoticed.
    """
    jobs = {job.title: job for job in queued}
    sentences = []
    for job in state.running():
        entry = jobs.get(job.title)
        if entry is None:
            job.waits = None
            if job.title and now - (job.queued or job.started or now) > UNNOTICED_S:
                sentences.append(unnoticed(job.name))
            continue
        job.queued = now
        if entry.state == "PENDING":
            job.waits = reason_of(entry)
            job.started = now
            if ENDLESS.search(job.waits):
                sentences.append(endless(job.name, entry))
        else:
            job.waits = None
            if (seconds := seconds_of(entry.elapsed)) is not None:
                job.started = now - seconds
    return sentences


def reason_of(entry: QueuedJob) -> str:
    """Return the reason why a job waits, in SLURM's word or in short."""
    reason = entry.place.strip("()")
    return next((text for begin, text in SHORT.items() if reason.startswith(begin)), reason)


def endless(name: str, entry: QueuedJob) -> str:
    """Return a sentence on a job that will not start by itself."""
    return (
        f"{name} waits in SLURM's queue and will not start by itself: {entry.place.strip('()')} "
        f"(scontrol show job {entry.number}; docs/cluster.md, Waiting)"
    )


def unnoticed(name: str) -> str:
    """Return a sentence on a job that SLURM has ended and Snakemake still awaits."""
    return (
        f"{name} is no longer in SLURM's queue, and Snakemake does not notice that it ended: "
        "interrupt it (Ctrl-C) and give the same command again; what is complete stays"
    )
