"""When ranks stop, save, fail or are ended, by a clock and collectives of the test."""

from __future__ import annotations

import faulthandler
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist

from medscale.base.errors import MedscaleError
from medscale.data.loader import Batch, Step
from medscale.engine.parallel.failures import FOLDER
from medscale.engine.parallel.model import SUMS
from medscale.engine.plan import Parallel
from medscale.engine.train import guard
from medscale.engine.train.guard import FailedElsewhere, Guard, Watch, Watchdog

IDS = torch.tensor([7, 9])
STEP = Step([Batch(torch.zeros(2, 1), IDS, IDS)], 2)


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which a test sets."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


@pytest.fixture(params=["cpu", "cuda"])
def ranks(request, monkeypatch):
    """Two ranks, of which the other has the flags ``other``; a GPU's flags come by an event."""
    world = SimpleNamespace(is_main=True, control="gloo", other=[0, 0, 0], waits=0)

    def all_reduce(flags, group, async_op=False):
        assert group == "gloo"
        flags += torch.tensor(world.other)
        return SimpleNamespace(wait=lambda: None) if async_op else None

    def synchronize():
        world.waits += 1

    def fetch(sums):
        flags = torch.tensor([int(sums[-1]), 0, 0])
        return flags, SimpleNamespace(synchronize=synchronize)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    if request.param == "cuda":
        monkeypatch.setattr(Guard, "_fetch", staticmethod(fetch))
    yield world
    assert world.waits > 0 or request.param == "cpu"


def decisions(agreed, clock, steps, seconds=0.0, not_finite=0):
    """Take steps of some seconds; return the guard's decisions after each, and at the end."""
    results, sums = [], torch.zeros(SUMS, dtype=torch.int64)
    sums[-1] = not_finite
    for number in range(1, steps + 1):
        clock.s += seconds
        results.append(agreed.after(STEP, sums, number, f"in step {number}"))
    return [*results, agreed.settle()]


GO, STOP, SAVE = (False, False), (True, False), (False, True)


def test_a_decision_is_about_the_step_before(ranks, clock):
    agreed = Guard(ranks, Parallel(checkpoint_every_steps=2), Watch())
    assert decisions(agreed, clock, 5) == [GO, GO, SAVE, GO, SAVE, GO]
    ranks.is_main = False
    assert decisions(agreed, clock, 4) == [GO] * 5, "rank 0 alone asks for checkpoints"
    ranks.other = [0, 0, 1]
    assert decisions(agreed, clock, 2) == [GO, SAVE, SAVE]


def test_checkpoints_take_a_small_share_of_the_time(ranks, clock):
    agreed = Guard(ranks, Parallel(checkpoint_every_s=10), Watch())
    assert decisions(agreed, clock, 5, 4.0) == [GO, GO, GO, SAVE, GO, GO]
    agreed.saved(1.0)  # 50 s later it has taken 2 % of the time
    assert decisions(agreed, clock, 6, 10.0) == [GO] * 6 + [SAVE]
    agreed.saved(0.1)
    assert decisions(agreed, clock, 3, 6.0) == [GO, GO, SAVE, GO], "not below the setting"


def test_all_ranks_stop_when_one_has_to(ranks, clock):
    watch = Watch()
    agreed = Guard(ranks, Parallel(stop_after_s=60, checkpoint_every_s=1000), watch)
    assert decisions(agreed, clock, 3, 20.0) == [GO] * 4
    ranks.other = [0, 1, 0]
    assert decisions(agreed, clock, 1) == [GO, STOP]
    assert agreed.reason == "another rank"
    ranks.other = [0, 0, 0]
    assert decisions(agreed, clock, 1, 0.5) == [GO, STOP]
    assert agreed.reason == "the time limit"
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        watch.install()
        for number in before:
            os.kill(os.getpid(), number)
            assert agreed.reason == number.name
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    agreed = Guard(ranks, Parallel(), watch)
    assert decisions(agreed, clock, 1) == [GO, STOP]


def test_a_loss_that_is_not_finite_is_reported_by_its_own_rank(ranks, clock):
    agreed = Guard(ranks, Parallel(), Watch())
    with pytest.raises(MedscaleError, match=r"in step 1; .* ids in index\.parquet: \[7, 9\]\."):
        decisions(agreed, clock, 2, not_finite=1)
    ranks.other = [1, 0, 0]
    with pytest.raises(FailedElsewhere, match="on another rank, in step 1"):
        decisions(agreed, clock, 2)


def test_a_rank_that_hangs_is_ended_after_the_longest_step(clock, monkeypatch, tmp_path):
    limits = []
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(
        faulthandler,
        "dump_traceback_later",
        lambda seconds, exit, file: limits.append(seconds) if exit else None,
    )
    dog = Watchdog(0, 30.0)
    for seconds in (500.0, 5.0, 0.5, 0.4, 0.2, 2.0):  # reading, then steps
        clock.s += seconds
        dog.pet()
    assert limits == [600, 34, 39, 39, 39], "short steps do not set the timer each time"
    dog.rest()
    clock.s += 100  # of writing
    dog.pet()
    assert limits[5:] == [600, 39]
