"""A pool of processes that work in batches and are replaced when they die or hang."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.interrupts import blocked
from medscale.base.log import log
from medscale.engine.parallel.orphan import die_with_parent
from medscale.serve.http.queue import Budget, FairQueue, Job

CHECK_S = 2.0  # interval at which an idle process is asked for a sign of life
RETRY_S = 1.0  # wait between attempts to replace a process
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that stop the service
TRIES = 2  # a job whose process dies is tried once more, in a batch by itself


class Lost(Exception):
    """A job that took too long, or ended its process twice."""


class OverBudget(Exception):
    """A job of a request whose other jobs used up its time."""


@dataclass(frozen=True)
class Work:
    """Names of the functions that a pool's processes run; only these import their module."""

    name: str  # in log and metrics
    module: str  # module of the functions
    start: str  # function that a new process calls once; the result describes the process
    carry_out: str  # function from a batch's key and the contents of its jobs to a result for each
    batch: int  # most jobs in a batch
    seconds: float  # after which a batch is given up and its process killed


@dataclass(eq=False)
class Pool:
    """Processes for one kind of work.

    A batch holds the jobs that wait with the same key when a process becomes free; no job is
    delayed to fill a batch. Callers are served in turn, see ``FairQueue``.
    """

    work: Work  # of the processes
    arguments: Sequence[tuple[Any, ...]]  # of ``work.start``, a tuple for each process
    # called after each batch with its key, its number of jobs and its seconds
    on_batch: Callable[[Any, int, float], None] = lambda key, size, seconds: None
    on_loss: Callable[[], None] = lambda: None  # called when a process has died or was killed
    waiting: FairQueue = field(default_factory=FairQueue)
    _processes: dict[int, Process] = field(default_factory=dict)
    _slots: list[asyncio.Task[None]] = field(default_factory=list)
    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def start(self) -> list[Any]:
        """Start all processes, and return the result of ``work.start`` in each.

        Raises:
            MedscaleError: when one cannot start, with its reason.
        """
        numbers = range(len(self.arguments))
        try:
            facts = await together(self._start_process(number) for number in numbers)
        except BaseException:
            await self.stop()
            raise
        self._slots = [asyncio.create_task(self._serve(number)) for number in numbers]
        return facts

    @property
    def alive(self) -> int:
        """Number of processes that can receive work."""
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """Process ids of the processes that can receive work."""
        return [process.pid for process in self._processes.values()]

    async def do(
        self, key: Hashable, content: Any, caller: str = "", budget: Budget | None = None
    ) -> Any:
        """Queue a job, and return its result.

        Args:
            key: jobs with equal keys may share a batch.
            content: data of the job.
            caller: whose job it is.
            budget: of the request that it is a part of; None: no limit but that of a batch.

        Raises:
            Lost: when it took too long, or ended its process twice.
            OverBudget: when the request's other jobs used up its time.
        """
        job = Job(key, content, asyncio.get_running_loop().create_future(), caller, budget)
        await self._put(job)
        return await job.answer

    async def stop(self) -> None:
        """Kill all processes, and cancel the jobs that wait."""
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        await asyncio.gather(*(process.end() for process in self._processes.values()))
        self._processes.clear()
        for job in self.waiting:
            job.answer.cancel()

    async def _start_process(self, number: int) -> Any:
        process = Process()
        try:
            facts = await process.call(self.work.module, self.work.start, *self.arguments[number])
        except BrokenProcessPool:
            await process.end()
            raise MedscaleError(
                f"a process for {self.work.name} ended while it started; memory may be short"
            ) from None
        except BaseException:
            await process.end()
            raise
        self._processes[number] = process
        return facts

    async def _serve(self, number: int) -> None:
        """Give batches to process ``number``, and replace it when it is lost, until cancelled."""
        while True:
            batch: list[Job] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    batch = await self._take()
            if not await self._carry_out(self._processes[number], batch):
                await self._replace(number, batch)

    async def _take(self) -> list[Job]:
        """Wait for jobs, and return a batch; jobs beyond their request's budget are refused."""
        async with self._arrival:
            while True:
                while not (batch := self.waiting.take(self.work.batch)):
                    await self._arrival.wait()
                beyond_budget = [job for job in batch if job.budget and job.budget.seconds <= 0]
                for job in beyond_budget:
                    self.waiting.refund(job)
                self._settle(beyond_budget, [OverBudget()] * len(beyond_budget))
                if within_budget := [job for job in batch if job not in beyond_budget]:
                    return within_budget

    async def _carry_out(self, process: Process, batch: list[Job]) -> bool:
        """Give a process a batch; without one, ask for a sign of life.

        A batch that takes too long is not repeated: it would take as long again.

        Returns:
            Whether the process is alive afterwards.
        """
        start = asyncio.get_running_loop().time()
        try:
            budgets = [job.budget.seconds for job in batch if job.budget]
            async with asyncio.timeout(min([self.work.seconds, *budgets])):
                if not batch:
                    await process.call("os", "getpid")
                    return True
                contents = [job.content for job in batch]
                results = await process.call(
                    self.work.module, self.work.carry_out, batch[0].key, contents
                )
            self._settle(batch, results)
        except BrokenProcessPool:
            return False
        except TimeoutError:
            self._settle(batch, [Lost()] * len(batch))
            return False
        except Exception as error:  # raised by one job; the process is alive
            if len(batch) == 1:
                log.error("%s: a bug", self.work.name, exc_info=error)
                self._settle(batch, [error])
            else:  # only the job that raised it must fail
                await self._put_back(batch)
            return True
        finally:
            seconds = asyncio.get_running_loop().time() - start
            for job in batch:
                self.waiting.charge(job, seconds / len(batch))
        self.on_batch(batch[0].key, len(batch), seconds)
        return True

    def _settle(self, batch: Sequence[Job], results: Sequence[Any]) -> None:
        for job, result in zip(batch, results, strict=True):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)

    async def _replace(self, number: int, batch: list[Job]) -> None:
        """Kill a lost process, queue its jobs again, and start another process."""
        self._processes.pop(number).kill()
        self.on_loss()
        log.warning("a process for %s was lost and is replaced", self.work.name)
        await self._put_back(batch)
        while number not in self._processes:
            try:
                await self._start_process(number)
            except Exception as error:
                log.error("a process for %s could not be replaced: %s", self.work.name, error)
                await asyncio.sleep(RETRY_S)

    async def _put_back(self, batch: list[Job]) -> None:
        """Queue jobs again before those of their callers, unless tried ``TRIES`` times or done."""
        for job in reversed(batch):
            job.tries += 1
            if job.answer.done():
                continue
            if job.tries < TRIES:
                await self._put(job, first=True)
            else:
                job.answer.set_exception(Lost())

    async def _put(self, job: Job, *, first: bool = False) -> None:
        async with self._arrival:
            self.waiting.put(job, first=first)
            self._arrival.notify()


async def together(works: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Return the results of coroutines; when one fails, cancel the others and raise its error."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Process:
    """A process that calls functions one after another, until it is killed or its parent ends."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(1, mp_context=context, initializer=_initialize)
        self.pid = 0

    async def call(self, module: str, function: str, *arguments: Any) -> Any:
        """Return the result of a module's function in the process.

        Raises:
            BrokenProcessPool: when the process dies.
        """
        if not self.pid:
            self.pid = await asyncio.wrap_future(self._start())
        return await asyncio.wrap_future(self._executor.submit(_call, module, function, *arguments))

    def _start(self) -> Future[int]:
        """Start the process while SIGINT and SIGTERM are blocked, which it inherits.

        Otherwise Ctrl-C would end it with a traceback before it can ignore signals.
        """
        with blocked(SIGNALS):
            return self._executor.submit(os.getpid)

    def kill(self, *, wait: bool = False) -> None:
        """Kill the process; with ``wait``, also wait for the thread that watches it."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._executor.shutdown(wait=wait and self.pid > 0, cancel_futures=True)

    async def end(self) -> None:
        """Kill the process, and wait for the thread that watches it.

        At its exit, Python writes to a pipe of this thread, and prints a traceback if the thread
        closes the pipe at that moment.
        """
        await asyncio.to_thread(self.kill, wait=True)


def _call(module: str, function: str, *arguments: Any) -> Any:
    return getattr(import_module(module), function)(*arguments)


def _initialize() -> None:
    """Prepare a new process: signals to the service must not end accepted work."""
    die_with_parent()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
