"""The exchanges of a step are timed by events of the device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage
from torch.testing._internal.distributed.fake_pg import FakeStore

from device_steps import step_of
from medscale.engine.models.registry import build
from medscale.engine.parallel.fsdp import EXCHANGES, FSDP, SMALLEST, UNITS, _groups, _units, shard
from medscale.engine.parallel.pipeline import TimedStage
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.waits import Waits
from medscale.engine.plan import Model, Recipe
from medscale.engine.train.recipe import optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


CPU = torch.device("cpu")


def test_events_of_the_last_step_stand_for_all(monkeypatch):
    waits = Waits(CPU)
    waits.add(waits.mark() - 0.5)
    assert 0.5 <= waits.take(3) < 0.6
    assert waits.take(0) == 0
    times = iter([1.0, 2.0])
    event = lambda **_: SimpleNamespace(  # noqa: E731
        record=lambda: None, elapsed_time=lambda other: next(times)
    )
    gpu = Waits(torch.device("cuda", 0))
    gpu.spans = [(event(), event()), (event(), event())]
    assert gpu.take(100) == pytest.approx(0.3)  # 3 ms a step
    gpu.begin_step()
    assert gpu.take(100) == 0


class Ticks:
    """A pretended CUDA event: each recording is 1 ms after the one before."""

    count = 0

    def __init__(self, **_):
        self.time = None

    def record(self):
        Ticks.count += 1
        self.time = Ticks.count

    def elapsed_time(self, end):
        return float(end.time - self.time)


def test_events_are_recorded_within_a_step_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Ticks)
    waits = Waits(torch.device("cuda", 0))
    waits.add(waits.mark())  # as an evaluation does
    assert (waits.spans, waits.take(1)) == ([], 0)
    waits.begin_step()
    for _ in range(3):
        waits.add(waits.mark())
    spans = waits.end_step()
    waits.add(waits.mark())
    assert len(spans) == 3
    assert waits.take(100) == pytest.approx(0.3)


def test_a_stage_waits_between_its_micro_batches(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Ticks)
    monkeypatch.setattr(PipelineStage, "forward_one_chunk", lambda *_: Ticks().record())
    monkeypatch.setattr(PipelineStage, "backward_one_chunk", lambda *_: Ticks().record())
    stage = object.__new__(TimedStage)
    stage.submod = SimpleNamespace(chunk=0)
    stage.waits = Waits(torch.device("cuda", 0))
    stage.waits.begin_step()
    stage.idle = stage.waits.mark()
    stage.forward_one_chunk(0)
    stage.forward_one_chunk(1)
    stage.backward_one_chunk(0)
    stage.waits.add(stage.idle)
    assert len(stage.waits.end_step()) == 4, "before, between and after three micro-batches"
    assert stage.waits.take(1) == pytest.approx(0.004), "computing is left out"


def test_the_exchanges_of_fsdp_are_timed_by_events(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Ticks)
    model = object.__new__(FSDP)
    model.waits = Waits(torch.device("cuda", 0))
    group = SimpleNamespace(**{name: lambda value=None: value for name in EXCHANGES})
    model._measure_waits([group])
    model.waits.begin_step()
    assert [getattr(group, name)(name) for name in EXCHANGES] == list(EXCHANGES)
    assert len(model.waits.end_step()) == len(EXCHANGES)
    assert model.waits.measured


# Attributes of FSDP2 that hold buffers and events of exchanges: of all groups, and of each.
PENDING = ("gather_state", "scatter_state", "scatter_states", "_events")


RESULTS = (
    "_all_gather_result",
    "_post_reduce_event",
    "_reshard_after_forward_event",
    "_all_reduce_state",
)


@pytest.fixture
def sharded():
    """Return a function that makes FSDP's step of two ranks, whose collectives do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("dp", "pp"))
    world = SimpleNamespace(
        device=CPU, size=2, replica=0, replicas=2, replica_group=mesh.get_group("dp"), mesh=mesh
    )

    def make(number_format, network=None):
        network = network or build(Model(name="medical_cnn", options={"width": 16}), 2)
        model = shard(network, world, Precision(number_format, CPU))
        recipe = Recipe(clip_norm=1.0, ema=0.9)
        rated = optimizer(model.network, recipe, model.precision)
        return model, *step_of(model, rated, recipe)

    yield make
    dist.destroy_process_group()


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_a_step_of_fsdp_leaves_nothing_to_wait_for(sharded, number_format):
    """An event from outside of a capture would make the capture fail."""
    model, step, batches = sharded(number_format)
    groups = _groups(model.network)
    for work in (
        lambda: step(batches, 8),
        lambda: step(batches, 8),
        lambda: model.train(False),
        lambda: model.logits(batches[0].inputs),
        lambda: model.train(True),
        lambda: step(batches, 8),
    ):
        work()
        context = vars(groups[0].comm_ctx)
        pending = [name for name, value in context.items() if value and name.endswith(PENDING)]
        for group in groups:
            assert vars(group.comm_ctx) is context
            assert group.is_sharded
            pending += [name for name in RESULTS if getattr(group, name, None) is not None]
        assert not pending


def test_the_last_unit_of_fsdp_and_the_rest_are_whole_between_forward_and_backward(sharded):
    model, _, batches = sharded("fp32")
    model._forward(batches[0].inputs)
    rest, *units = (not group.is_sharded for group in _groups(model.network))
    assert rest
    assert units == [False] * 4 + [True]


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_each_exchange_of_fsdp_is_timed_once(sharded, monkeypatch, number_format):
    """A unit of several modules, as that of the normalization layers, has one group."""
    model, step, batches = sharded(number_format)
    depth, deepest = 0, 0

    def mark():
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        return 0.0

    def add(_):
        nonlocal depth
        depth -= 1

    monkeypatch.setattr(model.waits, "mark", mark)
    monkeypatch.setattr(model.waits, "add", add)
    step(batches, 8)
    assert (depth, deepest) == (0, 1)


def test_an_fsdp_of_other_names_is_not_measured_and_says_so(caplog):
    model = object.__new__(FSDP)
    model.waits = Waits(CPU)
    model._measure_waits([SimpleNamespace(unshard=print)])
    assert not model.waits.measured
    assert "counts as computing" in caplog.text


def test_units_of_fsdp_hold_every_large_block_once():
    network = build(Model(name="medical_cnn"), 2)
    units = list(_units(network))
    assert 2 <= len(units) <= UNITS
    blocks = [block for unit in units for block in unit]
    assert len(set(map(id, blocks))) == len(blocks)
    total = sum(p.numel() for p in network.parameters())
    for unit in units[:-1]:
        assert sum(p.numel() for block in unit for p in block.parameters()) >= total // UNITS
    assert not list(_units(build(Model(name="tiny_cnn"), 2))), f"all are below {SMALLEST}"


@pytest.mark.parametrize("kind", [nn.ModuleList, lambda modules: nn.Sequential(*modules)])
def test_a_container_of_small_blocks_is_no_unit_of_fsdp(kind):
    """A list is never called, and timm's networks can call the blocks of a sequence one by one."""
    blocks = kind(nn.Conv2d(64, 64, 3) for _ in range(5))  # of 36,928 parameters each
    inner = nn.Sequential(nn.ModuleList([nn.ReLU(), nn.Linear(400, 400), nn.Linear(3, 3)]))
    nested = kind([nn.ReLU(), kind([nn.Linear(250, 250), kind([])]), nn.Linear(250, 250)])
    network = nn.ModuleDict({"blocks": blocks, "inner": inner, "nested": nested})
    assert [list(map(type, unit)) for unit in _units(network)] == [
        [nn.Conv2d] * 3,
        [nn.Conv2d] * 2 + [nn.Linear],
        [nn.Linear] * 2,
    ]


class OneByOne(nn.Module):
    """A network that calls the blocks of an ``nn.Sequential`` by itself."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def small_blocks():
    return [nn.Linear(250, 250) for _ in range(4)]


def blocks_that_share_a_layer():
    """Return blocks as those of timm's coat."""
    shared = nn.Sequential(nn.Linear(250, 250), nn.BatchNorm1d(250))
    return [OneByOne(nn.Linear(250, 250), shared) for _ in range(4)]


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize("make", [small_blocks, blocks_that_share_a_layer])
def test_fsdp_gathers_each_block_when_it_is_called(sharded, make, number_format):
    model = sharded(number_format, OneByOne(*make()))[0]
    for _ in range(2):
        model._forward(torch.ones(2, 250)).sum().backward()
    parameters = list(model.network.parameters())
    assert parameters
    for parameter, gradient in zip(parameters, model.gradients(), strict=True):
        assert parameter.shape[0] == 250 == 2 * len(gradient)
