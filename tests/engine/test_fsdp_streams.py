"""The streams of FSDP within a captured step, by pretended streams on the CPU.

A capture forbids two things: to wait for work that was begun outside of it, and to end while
another stream has work that the capturing stream has not waited for.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from device_steps import READS, step_of
from medscale.engine.models.registry import build
from medscale.engine.parallel.fsdp import shard
from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Model, Recipe
from medscale.engine.train.recipe import optimizer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


class Event:
    """A pretended event: the work that a stream had, or knew of, when it was recorded."""

    def __init__(self):
        self.capture, self.known = None, {}

    def record(self, stream=None):
        stream = stream or torch.cpu.current_stream()
        self.capture, self.known = stream.capture, dict(stream.known)


class Stream:
    """A pretended stream: how many operators of each stream its next operator comes after."""

    capture = 0  # number of the capture that the stream is part of; 0: none

    def __init__(self, priority=0):
        self.known = {}

    def record_event(self):
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event):
        if event.capture != self.capture and self.capture:
            raise RuntimeError("a capture waits for work outside of it")
        self.capture = event.capture
        for stream, count in event.known.items():
            self.known[stream] = max(count, self.known.get(stream, 0))

    def wait_stream(self, stream):
        self.wait_event(stream.record_event())


class Work(TorchDispatchMode):
    """Count each operator as work of the current stream; refuse those that the host waits for."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        assert not str(function).startswith(READS), function
        stream = torch.cpu.current_stream()
        stream.known[stream] = stream.known.get(stream, 0) + 1
        return function(*arguments, **(options or {}))


class Captures:
    """Pretended captures on one stream."""

    def __init__(self):
        self.main, self.count = Stream(), 0

    def capture(self, work):
        """Do work as a capture; return the number of streams that had some."""
        self.count += 1
        self.main.capture = self.count
        self.main.known = {self.main: 0}
        with Work():
            work()
        used = [stream for stream in self.main.known if stream.capture == self.count]
        unjoined = [
            stream
            for stream in self.streams
            if stream.capture == self.count
            and stream.known.get(stream) != self.main.known.get(stream)
        ]
        assert not unjoined, "a stream has work that the capturing one has not waited for"
        for stream in self.streams:
            stream.capture, stream.known = 0, {}
        return len(used)


@pytest.fixture
def captures(monkeypatch):
    """Pretended streams in place of those of the CPU, which do nothing."""
    simulated = Captures()
    simulated.streams = [simulated.main]

    class Listed(Stream):
        def __init__(self, priority=0):
            super().__init__(priority)
            simulated.streams.append(self)

    monkeypatch.setattr(torch.cpu, "Stream", Listed)
    monkeypatch.setattr(torch.cpu, "Event", Event)
    monkeypatch.setattr(torch.cpu, "_current_stream", simulated.main)
    return simulated


@pytest.fixture(params=[1, 2])
def world(request):
    """Return the world of the first of one or two ranks, whose collectives do nothing."""
    ranks = request.param
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks, 1), mesh_dim_names=("dp", "pp"))
    yield SimpleNamespace(
        device=CPU,
        size=ranks,
        replica=0,
        replicas=ranks,
        replica_group=mesh.get_group("dp"),
        mesh=mesh,
    )
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("number_format", "kind"),
    [("fp32", "adam"), ("bf16", "sgd"), ("fp16", "sgd"), ("fp16", "adamw")],
)
def test_a_step_of_fsdp_has_nothing_that_a_capture_forbids(captures, world, number_format, kind):
    network = build(Model(name="medical_cnn", options={"width": 16}), 2)
    model = shard(network, world, Precision(number_format, CPU))
    recipe = Recipe(clip_norm=1.0, ema=0.9, optimizer=kind)
    rated = optimizer(model.network, recipe, model.precision)
    step, batches = step_of(model, rated, recipe)  # two micro-batches
    step(batches, 8)
    for stream in captures.streams:
        stream.capture, stream.known = 0, {}
    used = [captures.capture(lambda: step(batches, 8)) for _ in range(2)]
    assert used == [4 if world.size > 1 else 2] * 2, "gather twice, scatter"
    model.train(False)
    captures.capture(lambda: model.logits(batches[0].inputs))


def test_the_pretended_capture_finds_what_is_forbidden(captures):
    other = torch.cpu.Stream()

    def forgets():
        other.wait_stream(captures.main)
        with torch.cpu.stream(other):
            torch.zeros(1)

    with pytest.raises(AssertionError, match="has not waited for"):
        captures.capture(forgets)
    other.capture = 0
    with pytest.raises(RuntimeError, match="outside of it"):
        captures.capture(lambda: captures.main.wait_stream(other))
