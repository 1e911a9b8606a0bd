"""Watch of SLURM's queue: which jobs of a study wait there, since when others run."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from medscale.base.errors import MedscaleError
from medscale.workflow.progress.state import State

if TYPE_CHECKING:
    from medscale.resources.slurm import QueuedJob

EVERY_S = 30.0
# Reasons of squeue that end only when settings of the job or of the cluster are changed.
ENDLESS = re.compile(
    r"Partition(Config|TimeLimit|NodeLimit|Down|Inactive)|BadConstraints|JobHeld|held|"
    r"(Account|QOS|Qos)NotAllowed|Invalid(Account|QOS|Qos)|"
    r"(Assoc|QOS)Max\w+Per(Job|Node)(Limit)?"
)
CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")


class Watch:
    """A thread that asks for the queue twice a minute and notes in a state which jobs wait.

    Args:
        state: the state of the study.
        ask: returns the queued jobs; may raise MedscaleError when SLURM does not answer.
        say: shows a line to the person, once for each job that waits without an end.
    """

    def __init__(
        self, state: State, ask: Callable[[], list[QueuedJob]], say: Callable[[str], None]
    ) -> None:
        self._state, self._ask, self._say = state, ask, say
        self._shown: set[str] = set()
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
                if text not in self._shown and not self._end.is_set():
                    self._shown.add(text)
                    self._say(text)
            self._state.write()


def note(state: State, queued: Iterable[QueuedJob], now: float) -> list[str]:
    """Note in a state which jobs wait in the queue, and since when others run.

    Returns a sentence for each job that will wait without an end.
    """
    jobs = {job.title: job for job in queued}
    sentences = []
    for job in state.running():
        entry = jobs.get(job.title)
        if entry is None:
            job.waits = None
        elif entry.state == "PENDING":
            job.waits = entry.place.strip("()")
            job.started = now
            if ENDLESS.search(job.waits):
                sentences.append(endless(job.name, entry))
        else:
            job.waits = None
            if (seconds := passed(entry.passed)) is not None:
                job.started = now - seconds
    return sentences


def endless(name: str, entry: QueuedJob) -> str:
    """Return a sentence on a job that waits for what will not come by itself."""
    return (
        f"{name} waits in SLURM's queue and will not start by itself: {entry.place.strip('()')} "
        f"(scontrol show job {entry.number}; docs/cluster.md, Waiting)"
    )


def passed(clock: str) -> float | None:
    """Return the seconds of a time that SLURM writes as [[days-]hours:]minutes:seconds."""
    if (match := CLOCK.fullmatch(clock)) is None:
        return None
    days, hours, minutes, seconds = (int(text or 0) for text in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
