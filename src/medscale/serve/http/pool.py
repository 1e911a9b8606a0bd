"""Processes that work for the service: what waits is taken in batches, and a process that dies is replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.engine.parallel.orphan import die_with_parent

LOOK_S = 2.0  # an idle process is asked so often whether it is there
PAUSE_S = 1.0  # between attempts to replace a process
TRIES = 2  # a job whose process dies is tried once more, alone


class Lost(Exception):
    """A job that a process did not survive, or did not finish in time, also alone."""


@dataclass(eq=False)
class Job:
    """A piece of work; jobs of the same key may go through a process together."""

    key: Hashable
    content: Any
    done: asyncio.Future[Any]
    tries: int = 0


@dataclass(frozen=True)
class Work:
    """What a pool's processes do, in functions of a module that they alone import.

    Attributes:
        name: for log and metrics.
        module: where the functions are.
        start: name of what is called once in a new process; what it returns tells about it.
        carry_out: name of what is called with a key and the contents of a batch, and gives a result for each.
        most: jobs a batch.
        seconds: a batch that takes longer is given up, with its process.
    """

    name: str
    module: str
    start: str
    carry_out: str
    most: int
    seconds: float


@dataclass(eq=False)
class Pool:
    """Processes for one kind of work. A batch is whatever waits when a process is free: nothing waits for company.

    Attributes:
        work: what is done.
        arguments: of ``work.start``, one tuple a process.
        on_batch: called with key and size of each finished batch, and the seconds it took.
        on_loss: called when a process has died or was given up.
    """

    work: Work
    arguments: Sequence[tuple[Any, ...]]
    on_batch: Callable[[Any, int, float], None] = lambda key, size, seconds: None
    on_loss: Callable[[], None] = lambda: None
    waiting: deque[Job] = field(default_factory=deque)
    _processes: dict[int, Process] = field(default_factory=dict)
    _slots: list[asyncio.Task[None]] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def start(self) -> list[Any]:
        """Start all processes; what each tells about itself.

        Raises:
            MedscaleError: when one cannot start, with its reason.
        """
        try:
            facts = await together(self._begin(number) for number in range(len(self.arguments)))
        except BaseException:
            await self.stop()
            raise
        self._slots = [
            asyncio.create_task(self._slot(number)) for number in range(len(self.arguments))
        ]
        return facts

    @property
    def alive(self) -> int:
        """Processes that can be given work."""
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [process.pid for process in self._processes.values()]

    async def do(self, key: Hashable, content: Any) -> Any:
        """A job's result, when a process has come to it.

        Raises:
            Lost: when it ended its process, or was not finished in time.
        """
        job = Job(key, content, asyncio.get_running_loop().create_future())
        await self._put(job)
        return await job.done

    async def stop(self) -> None:
        """End all processes; jobs that are left are lost."""
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        for process in self._processes.values():
            process.end()
        self._processes.clear()
        for job in self.waiting:
            job.done.cancel()

    async def _begin(self, number: int) -> Any:
        process = Process()
        try:
            facts = await process.call(self.work.module, self.work.start, *self.arguments[number])
        except BrokenProcessPool:
            process.end()
            raise MedscaleError(
                f"a process for {self.work.name} ended while it started; memory may be short"
            ) from None
        except BaseException:
            process.end()
            raise
        self._processes[number] = process
        return facts

    async def _slot(self, number: int) -> None:
        """Let one process work, and replace it, for as long as the pool is there."""
        while True:
            batch: list[Job] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    batch = await self._take()
            if not await self._carry_out(self._processes[number], batch):
                await self._replace(number, batch)

    async def _take(self) -> list[Job]:
        """The oldest job and all that may go with it, up to a batch; one that was tried before goes alone."""
        async with self._news:
            while True:
                while self.waiting and self.waiting[0].done.done():  # its caller has gone
                    self.waiting.popleft()
                if self.waiting:
                    break
                await self._news.wait()
            first = self.waiting[0]
            batch = [first]
            if not first.tries:
                alike = (
                    job
                    for job in self.waiting
                    if job.key == first.key and not job.tries and not job.done.done()
                )
                batch = [job for job, _ in zip(alike, range(self.work.most), strict=False)]
            taken = set(map(id, batch))
            kept = [job for job in self.waiting if id(job) not in taken]
            self.waiting.clear()
            self.waiting.extend(kept)
            return batch

    async def _carry_out(self, process: Process, batch: list[Job]) -> bool:
        """Give a process a batch, or ask whether it is there; whether it is afterwards."""
        begun = asyncio.get_running_loop().time()
        try:
            if not batch:
                await process.call("os", "getpid")
                return True
            async with asyncio.timeout(self.work.seconds):
                contents = [job.content for job in batch]
                results = await process.call(
                    self.work.module, self.work.carry_out, batch[0].key, contents
                )
            self._settle(batch, results)
        except (BrokenProcessPool, TimeoutError):
            return False
        except (
            Exception
        ) as error:  # the process goes on; one job's fault must not be that of its batch
            if len(batch) == 1:
                log.error("%s: a bug", self.work.name, exc_info=error)
                self._settle(batch, [error])
            else:
                await self._again(batch)
            return True
        self.on_batch(batch[0].key, len(batch), asyncio.get_running_loop().time() - begun)
        return True

    def _settle(self, batch: list[Job], results: list[Any]) -> None:
        for job, result in zip(batch, results, strict=True):
            if job.done.done():
                continue
            if isinstance(result, Exception):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)

    async def _replace(self, number: int, batch: list[Job]) -> None:
        """Put a new process where one was lost; its jobs are tried once more by whichever is free, each alone."""
        self._processes.pop(number).end()
        self.on_loss()
        log.warning("a process for %s was lost and is replaced", self.work.name)
        await self._again(batch)
        while number not in self._processes:
            try:
                await self._begin(number)
            except Exception as error:
                log.error("a process for %s could not be replaced: %s", self.work.name, error)
                await asyncio.sleep(PAUSE_S)

    async def _again(self, batch: list[Job]) -> None:
        """Put jobs back where they came from, each to be tried alone; those that were are lost."""
        for job in reversed(batch):
            job.tries += 1
            if job.tries < TRIES:
                await self._put(job, first=True)
            elif not job.done.done():
                job.done.set_exception(Lost())

    async def _put(self, job: Job, *, first: bool = False) -> None:
        async with self._news:
            (self.waiting.appendleft if first else self.waiting.append)(job)
            self._news.notify()


async def together(works: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Results of all; when one fails the others are cancelled before its error is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Process:
    """One process that calls functions one after another; it ends with the one that made it, and at no other signal."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(1, mp_context=context, initializer=_settle_in)
        self.pid = 0

    async def call(self, module: str, function: str, *arguments: Any) -> Any:
        """What a function of a module returns there.

        Raises:
            BrokenProcessPool: when the process dies.
        """
        if not self.pid:
            self.pid = await asyncio.wrap_future(self._executor.submit(os.getpid))
        return await asyncio.wrap_future(self._executor.submit(_call, module, function, *arguments))

    def end(self) -> None:
        """Kill it."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._executor.shutdown(wait=False, cancel_futures=True)


def _call(module: str, function: str, *arguments: Any) -> Any:
    return getattr(import_module(module), function)(*arguments)


def _settle_in() -> None:
    """In a new process: a signal meant for the service must not end what has been accepted."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
