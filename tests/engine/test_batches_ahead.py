"""The next batch is made while a step trains."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from threading import Event, get_ident
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from device_steps import AHEAD, Crossings
from medscale.base.errors import MedscaleError
from medscale.data import ahead as data_ahead
from medscale.data import augment
from medscale.data.ahead import ahead
from medscale.data.loader import Loader
from medscale.data.shards import Shards
from medscale.engine.plan import Augment
from medscale.engine.train.clock import Clock
from waiting import until

pytestmark = pytest.mark.usefixtures("one_thread")


CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_is_made_without_waiting_for_the_card(shards, monkeypatch, training):
    """On fake tensors of a GPU; a copy is not waited for if its source is pinned memory."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: pinned.append(1) or values)
    for name in ("_constant", "_noise_sequence"):  # no other test gets the caches' fake tensors
        monkeypatch.setattr(augment, name, cache(getattr(augment, name).__wrapped__))
    crop = {"mode": "resized", "size": 8}
    changes = {"rotate": 10, "hflip": 0.5, "gamma": 0.2, "noise": 0.05, "crop": crop}
    shard_set = Shards.open(shards)
    with FakeTensorMode():
        loader = Loader(
            shard_set,
            "train",
            global_batch=10,
            replicas=1,
            replica=0,
            accumulate=2,
            training=training,
            augment=Augment(**changes),
            metadata=np.ones((len(shard_set.labels), 3), np.float32),
            device="cuda:0",
            resident=True,
        )
        steps = loader._steps(0, 0)
        next(steps)  # copies the split and the constants
        pinned.clear()
        with Crossings() as crossings:
            step = next(steps)
    assert {t.device.type for t in (*step.batches[0].arguments, step.batches[0].labels)} == {"cuda"}
    assert crossings.names == [AHEAD] * len(pinned)
    assert len(pinned) == 9, "positions, six changes, labels, metadata"


@pytest.fixture
def stream(monkeypatch):
    """A pretended stream, to run the thread of a GPU on the CPU."""
    waits = []
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    work = SimpleNamespace(query=lambda: True)  # the stream is idle
    user = SimpleNamespace(wait_event=waits.append, record_event=lambda: work)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: user)
    devices = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: devices.append((gpu, get_ident())))
    return SimpleNamespace(
        record_event=lambda: "ready", waits=waits, device=torch.device("cuda", 1), devices=devices
    )


def test_one_item_is_made_ahead_and_waited_for(stream):
    prepared_items, consumed_items = [], []

    def items():
        for number in range(4):
            prepared_items.append(number)
            yield number

    waits = []
    for number in ahead(items(), stream, lambda item: [], waits.append):
        until(lambda: len(prepared_items) >= min(number + 2, 4), "the next item")  # noqa: B023
        assert len(prepared_items) == min(number + 2, 4), (
            "the next item is made meanwhile, and no other"
        )
        consumed_items.append(number)
    assert consumed_items == [0, 1, 2, 3]
    assert stream.waits == ["ready"] * 4
    assert len(waits) == 5, "the end is waited for, too"


def test_the_thread_of_a_later_gpu_does_not_touch_the_first(stream):
    """The current GPU of a new thread is the first; each rank has another one."""
    threads = list(ahead((get_ident() for _ in range(2)), stream, lambda item: []))
    assert stream.devices == [(torch.device("cuda", 1), threads[0])]
    assert threads[0] == threads[1] != get_ident()


def test_a_gpu_that_works_on_the_item_before_does_not_wait(stream, monkeypatch):
    """The item is ready at 1.5 s, and the GPU has finished the one before at 1.0 s."""
    now, idle, waits = [0.0], Event(), []

    def query():
        if now[0] >= 1.0:
            idle.set()
            return True
        now[0] += 0.5
        return False

    def items():
        assert idle.wait(60)
        now[0] = 1.5
        yield "item"

    monkeypatch.setattr(data_ahead, "perf_counter", lambda: now[0])
    user = torch.cuda.current_stream()  # cannot be synchronized with
    monkeypatch.setattr(user, "record_event", lambda: SimpleNamespace(query=query))
    assert list(ahead(items(), stream, lambda item: [], waits.append)) == ["item"]
    assert waits == [0.5, 0.0]


def test_only_a_step_that_is_not_ready_is_waited_for(shards):
    loader = Loader(Shards.open(shards), "val", global_batch=4, replicas=1, replica=0)
    clock = Clock(CPU, {})
    assert sum(1 for _ in clock.waiting(loader.epoch(0), loader.waited)) == 6
    assert clock.spent["data"] > 0, "a CPU prepares the steps itself"
    loader._device = torch.device("cuda", 0)
    steps = iter([(0.0, "first"), (0.5, "second")])

    def source():
        for seconds, step in steps:
            loader._add_wait(seconds)
            yield step

    clock = Clock(CPU, {})
    assert list(clock.waiting(source(), loader.waited)) == ["first", "second"]
    assert clock.spent["data"] == 0.5


def test_a_split_of_a_gpu_is_loaded_before_the_first_batch(shards, stream, monkeypatch):
    loader = Loader(Shards.open(shards), "val", global_batch=4, replicas=1, replica=0)
    loader.load()
    assert "_on_device" not in vars(loader), "a CPU maps the files"
    loader = Loader(
        Shards.open(shards), "val", global_batch=4, replicas=1, replica=0, resident=True
    )
    loader._stream = stream  # as a GPU has one
    loader.load()
    assert len(vars(loader)["_on_device"]) == loader.images


def test_an_error_of_the_thread_comes_where_the_item_is_used(stream):
    def items():
        yield 1
        raise MedscaleError("the disk is gone")

    iterator = ahead(items(), stream, lambda item: [])
    assert next(iterator) == 1
    with pytest.raises(MedscaleError, match="the disk is gone"):
        next(iterator)
    early = ahead(iter(range(9)), stream, lambda item: [])
    assert next(early) == 0
    early.close()
