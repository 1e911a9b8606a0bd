"""Pools of processes: batches, and processes that die, hang or raise."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from medscale.base.errors import MedscaleError
from medscale.serve.http import pool as pool_module
from medscale.serve.http.pool import Lost, OverBudget, Pool, Work
from medscale.serve.http.queue import FIRST_GUESS_S, Budget, FairQueue, Job
from waiting import until_soon


def run(
    task: Callable[[Pool], Awaitable[Any]],
    size: int = 1,
    seconds: float = 20,
    batch: int = 4,
    **watched: Any,
) -> Any:
    async def main() -> Any:
        pool = Pool(
            Work("doubling", "pool_work", "start", "carry_out", batch, seconds),
            [()] * size,
            **watched,
        )
        facts = await pool.start()
        assert sorted(facts) == sorted(pool.pids)
        try:
            return await task(pool)
        finally:
            pids = pool.pids
            await pool.stop()
            await until_soon(lambda: not any(map(alive, pids)), "the processes end")

    return asyncio.run(main())


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


async def occupy(pool: Pool, end: Path) -> asyncio.Task[Any]:
    """Give the pool's process a job that lasts until a file is written; return the job."""
    slow = asyncio.create_task(pool.do("a", end))
    await until_soon(lambda: not list(pool.waiting), "a process takes the job")
    return slow


async def queued(pool: Pool, number: int) -> None:
    await until_soon(lambda: len(list(pool.waiting)) == number, f"{number} jobs wait")


def test_what_waits_goes_together_by_key(tmp_path: Path) -> None:
    async def task(pool: Pool) -> list[Any]:
        slow = await occupy(pool, tmp_path / "end")  # meanwhile the others gather
        keys = ["a", "b", "a", "b", "a", "a", "a"]
        results = asyncio.gather(*(pool.do(key, n) for n, key in enumerate(keys)))
        await queued(pool, len(keys))
        (tmp_path / "end").touch()
        return [await slow, *await results]

    batches: list[tuple[Any, int]] = []
    results = run(task, on_batch=lambda key, size, _: batches.append((key, size)))
    assert [value for value, _ in results] == [2, 0, 2, 4, 6, 8, 10, 12]
    assert batches == [("a", 1), ("a", 4), ("b", 2), ("a", 1)]  # at most 4; the oldest first


def test_a_process_that_is_killed_is_replaced_and_no_job_is_lost(tmp_path: Path) -> None:
    losses: list[int] = []

    async def task(pool: Pool) -> list[Any]:
        slow = await occupy(pool, tmp_path / "end")
        jobs = asyncio.gather(*(pool.do("a", value) for value in (1, 2, 3)))
        os.kill(pool.pids[0], signal.SIGKILL)
        (tmp_path / "end").touch()
        return [await slow, *await jobs]

    results = run(task, on_loss=lambda: losses.append(1))
    assert [value for value, _ in results] == [2, 2, 4, 6]
    assert len(losses) == 1


def test_an_idle_process_that_is_killed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "CHECK_S", 0.2)

    async def task(pool: Pool) -> None:
        first = pool.pids
        os.kill(first[0], signal.SIGKILL)
        await until_soon(lambda: pool.alive and pool.pids != first, "it is replaced")

    run(task)


def test_an_idle_process_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "CHECK_S", 0.2)

    async def task(pool: Pool) -> Any:
        (first,) = pool.pids
        os.kill(first, signal.SIGSTOP)
        await until_soon(lambda: pool.alive and pool.pids != [first], "it is replaced")
        return await pool.do("a", 3)

    assert run(task, seconds=1) == (6, 1)


def test_a_job_that_kills_is_lost_alone(tmp_path: Path) -> None:
    async def task(pool: Pool) -> list[Any]:
        slow = await occupy(pool, tmp_path / "end")
        results = asyncio.gather(
            *(pool.do("a", job) for job in (1, "die", 2)), return_exceptions=True
        )
        await queued(pool, 3)
        (tmp_path / "end").touch()
        return [await slow, *await results]

    slow, second_job, killed_job, last_job = run(task)
    assert (slow[0], second_job[0], last_job[0]) == (2, 2, 4)
    assert isinstance(killed_job, Lost)


def test_a_job_that_raises_or_hangs_spares_the_others(tmp_path: Path) -> None:
    async def task(pool: Pool) -> list[Any]:
        slow = await occupy(pool, tmp_path / "end")
        jobs = ("raise", 1, 300.0)
        results = asyncio.gather(*(pool.do("a", job) for job in jobs), return_exceptions=True)
        await queued(pool, len(jobs))
        (tmp_path / "end").touch()
        return [await slow, *await results]

    _, failed_job, next_job, hung = run(task, seconds=2)
    assert isinstance(failed_job, ValueError)
    assert next_job[0] == 2
    assert isinstance(hung, Lost)


def test_jobs_of_a_caller_that_left_are_dropped(tmp_path: Path) -> None:
    finished_jobs: list[int] = []

    async def task(pool: Pool) -> None:
        slow = await occupy(pool, tmp_path / "end")
        cancelled_task = asyncio.create_task(pool.do("a", 1))
        await queued(pool, 1)
        cancelled_task.cancel()
        (tmp_path / "end").touch()
        await slow
        await pool.do("a", 2)

    run(task, on_batch=lambda _, size, __: finished_jobs.append(size))
    assert finished_jobs == [1, 1]


def test_a_pool_that_stopped_leaves_no_thread() -> None:
    """A thread that still closes its pipe while Python exits would print a traceback."""

    async def main() -> list[threading.Thread]:
        pool = Pool(Work("doubling", "pool_work", "start", "carry_out", 4, 20), [()] * 2)
        before = set(threading.enumerate())
        await pool.start()
        watching = [thread for thread in threading.enumerate() if thread not in before]
        assert len([t for t in watching if "ExecutorManager" in type(t).__name__]) == 2
        await pool.stop()
        return [t for t in threading.enumerate() if "ExecutorManager" in type(t).__name__]

    assert asyncio.run(main()) == []


def test_what_cannot_start_says_why() -> None:
    async def start() -> None:
        await Pool(
            Work("doubling", "pool_work", "start", "carry_out", 1, 1), [(), ("no weights",)]
        ).start()

    with pytest.raises(MedscaleError, match="no weights"):
        asyncio.run(start())


def test_a_job_that_takes_too_long_is_not_repeated() -> None:
    losses: list[int] = []

    async def task(pool: Pool) -> None:
        with pytest.raises(Lost):
            await pool.do("a", 300.0)

    run(task, seconds=0.6, on_loss=lambda: losses.append(1))
    assert len(losses) == 1


def test_a_request_has_a_budget_and_other_requests_have_theirs() -> None:
    async def task(pool: Pool) -> list[Any]:
        budget = Budget(2)
        jobs = [pool.do("a", value, "x", budget) for value in (0.3, 300.0, 0.3)]
        return await asyncio.gather(*jobs, pool.do("b", 1, "x", Budget(20)), return_exceptions=True)

    first, shortened, over, other_request = run(task, batch=1)
    assert first[0] == 0.6
    assert isinstance(shortened, Lost)  # after what was left
    assert isinstance(over, OverBudget)
    assert other_request[0] == 2


def test_callers_are_served_in_turn() -> None:
    order: list[str] = []

    async def call(pool: Pool, caller: str, seconds: float) -> None:
        await pool.do("a", seconds, caller)
        order.append(caller)

    async def task(pool: Pool) -> None:
        many = [asyncio.create_task(call(pool, "many", 0.1)) for _ in range(8)]
        await until_soon(lambda: order, "the first job ends")
        await asyncio.gather(*(call(pool, "few", 0.1) for _ in range(2)), *many)

    run(task, batch=1)
    assert order.index("few") <= 3
    assert [at for at, caller in enumerate(order) if caller == "few"][1] <= 5


def queue_of(**jobs: list[float]) -> tuple[FairQueue, dict[Job, float]]:
    """A queue with jobs of callers, and how long each takes."""
    queue, seconds = FairQueue(), {}
    loop = asyncio.new_event_loop()
    for caller, values in jobs.items():
        for value in values:
            job = Job("key", value, loop.create_future(), caller)
            seconds[job] = value
            queue.put(job)
    loop.close()
    return queue, seconds


def test_time_counts_and_not_the_number_of_jobs() -> None:
    queue, seconds = queue_of(slow=[10.0] * 4, fast=[0.1] * 40)
    order = []
    while batch := queue.take(1):
        order.append(batch[0].caller)
        queue.charge(batch[0], seconds[batch[0]])
    assert order.index("fast") <= 1
    assert order[2:].count("fast") >= 38
    assert "slow" not in order[2:40]  # its first job took as long as all of the other's


def test_one_caller_does_not_get_all_free_processes_at_once() -> None:
    queue, _ = queue_of(a=[1.0] * 5, b=[1.0] * 5)
    assert {queue.take(1)[0].caller for _ in range(2)} == {"a", "b"}


def test_a_caller_saves_no_time_up() -> None:
    queue, seconds = queue_of(steady=[1.0] * 30)
    loop = asyncio.new_event_loop()
    for _ in range(10):
        queue.charge(queue.take(1)[0], 1.0)
    for _ in range(10):
        job = Job("key", 1.0, loop.create_future(), "late")
        seconds[job] = 1.0
        queue.put(job)
    loop.close()
    order = []
    for _ in range(8):
        job = queue.take(1)[0]
        order.append(job.caller)
        queue.charge(job, seconds[job])
    assert 3 <= order.count("late") <= 5


def test_a_job_that_no_process_received_counts_as_none() -> None:
    queue, _ = queue_of(refused=[1.0] * 2, other=[1.0] * 2)
    queue.refund(queue.take(1)[0])
    jobs = [queue.take(1)[0] for _ in range(3)]
    assert [job.caller for job in jobs] == ["other", "refused", "other"]
    assert {job.advance for job in jobs} == {FIRST_GUESS_S}  # no job of 0 s was carried out


def test_a_batch_is_filled_in_turn() -> None:
    queue, _ = queue_of(a=[1.0] * 9, b=[1.0] * 2, c=[1.0])
    assert [job.caller for job in queue.take(6)] == ["a", "b", "c", "a", "b", "a"]
    assert len(queue) == 6


def test_a_new_process_takes_no_signal_from_its_first_moment_on() -> None:
    """Ctrl-C reaches it while it starts, and would end it with a traceback."""

    async def task(pool: Pool) -> Any:
        process = next(iter(pool._processes.values()))
        return await process.call("signal", "pthread_sigmask", signal.SIG_BLOCK, [])

    assert {signal.SIGINT, signal.SIGTERM} <= run(task)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
