"""Jobs that wait for the processes of a pool, which serve the callers in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

CALLERS = 10_000  # callers whose used time is kept; the one served longest ago is dropped first
FIRST_GUESS_S = 0.1  # time of a job, before any has ended
SMOOTHING = 0.1  # weight of the newest job in the moving average of job durations


@dataclass(eq=False)
class Budget:
    """Time that the jobs of one request may take in processes, all together."""

    seconds: float  # left


@dataclass(eq=False)
class Job:
    """A piece of work; jobs with equal keys may share a batch."""

    key: Hashable
    content: Any
    answer: asyncio.Future[Any]
    caller: str = ""
    budget: Budget | None = None
    tries: int = 0
    advance: float = 0.0  # seconds that were counted for it when it was taken


class FairQueue:
    """Waiting jobs; the next is of the caller that has used the least time of processes.

    Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) of equal weights. As the time of a
    job is not known before its end, the mean time of recent jobs is counted in advance and
    corrected afterwards. A caller without jobs gains no credit: it comes back as if it had used as
    much as the caller that was served last.
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[Job]] = {}  # of the callers that wait
        self._used: OrderedDict[str, float] = OrderedDict()  # seconds by caller, latest last
        self._now = 0.0  # used seconds of the caller that was served last
        self._mean = FIRST_GUESS_S  # mean seconds of a job

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Job]:
        return chain.from_iterable(self._lines.values())

    def put(self, job: Job, *, first: bool = False) -> None:
        """Add a job at the end of its caller's line, or at its beginning."""
        if job.caller not in self._lines:
            self._lines[job.caller] = deque()
            self._count(job.caller, max(self._used.get(job.caller, 0.0), self._now))
        line = self._lines[job.caller]
        (line.appendleft if first else line.append)(job)

    def take(self, most: int) -> list[Job]:
        """Return a batch: the next job, then jobs of its key in turn by caller; empty if none wait.

        A job that was tried before is a batch by itself, so that no other job is lost with it.
        """
        self._forget_abandoned()
        if not self._lines:
            return []
        callers = sorted(self._lines, key=self._seconds)
        first = self._lines[callers[0]][0]
        self._now = max(self._now, self._seconds(callers[0]))
        batch = [first]
        if not first.tries and most > 1:
            alike = [
                [job for job in self._lines[caller] if job.key == first.key and not job.tries]
                for caller in callers
            ]
            batch = list(islice(_in_turn(alike), most))
        self._remove(batch)
        for job in batch:
            job.advance = self._mean
            self._count(job.caller, self._seconds(job.caller) + job.advance)
        return batch

    def charge(self, job: Job, seconds: float) -> None:
        """Count the time that a process took for a job."""
        self._count(job.caller, self._seconds(job.caller) + seconds - job.advance)
        self._mean += SMOOTHING * (seconds - self._mean)
        if job.budget is not None:
            job.budget.seconds -= seconds

    def refund(self, job: Job) -> None:
        """Take back the time that was counted in advance for a job that no process received."""
        self._count(job.caller, self._seconds(job.caller) - job.advance)

    def _seconds(self, caller: str) -> float:
        return self._used.get(caller, self._now)

    def _count(self, caller: str, seconds: float) -> None:
        self._used[caller] = seconds
        self._used.move_to_end(caller)
        if len(self._used) > CALLERS:
            self._used.popitem(last=False)

    def _remove(self, jobs: Sequence[Job]) -> None:
        removed = set(map(id, jobs))
        for caller in {job.caller for job in jobs}:
            line = deque(job for job in self._lines.pop(caller) if id(job) not in removed)
            if line:
                self._lines[caller] = line

    def _forget_abandoned(self) -> None:
        """Remove jobs whose callers have gone."""
        for caller in list(self._lines):
            line = deque(job for job in self._lines.pop(caller) if not job.answer.done())
            if line:
                self._lines[caller] = line


def _in_turn(lines: Sequence[Sequence[Job]]) -> Iterator[Job]:
    """Yield the first of each line, then the second of each, and so on."""
    return (job for row in zip_longest(*lines) for job in row if job is not None)
