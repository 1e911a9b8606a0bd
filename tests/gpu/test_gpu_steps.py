"""Steps on a card: a graph trains as calls do, without waiting for the card or taking memory."""

from __future__ import annotations

import gc
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from medscale.engine.formats import FORMATS
from medscale.engine.models.registry import build
from medscale.engine.parallel.apply import synchronized
from medscale.engine.parallel.world import World
from medscale.engine.plan import Model
from medscale.engine.train import graphs
from medscale.engine.train.capture import NotCaptured
from medscale.engine.train.loop import Trainer
from small_training import Small, equal, overflow, small_network

pytestmark = pytest.mark.gpu

STEPS = 20


@pytest.fixture
def shards(make_shards):
    return make_shards(train=66, val=41, test=9, size=32)


def pair(shards: Any, device: torch.device, **settings: Any) -> tuple[Small, Small]:
    """The same training, by calls and by graphs."""
    called, captured = Small(shards, device, **settings), Small(shards, device, **settings)
    captured.capture()
    return called, captured


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "weight_decay": 0.01, "ema": 0.9, "clip_norm": None},
        {"optimizer": "sgd", "accumulate": 3, "class_weights": True, "label_smoothing": 0.1},
        {"resident": False},
    ],
)
def test_a_graph_has_the_bits_of_calls(shards, device, number_format, settings):
    called, captured = pair(shards, device, number_format=number_format, **settings)
    assert called.train(STEPS) == captured.train(STEPS)
    assert equal(called.state(), captured.state())
    assert not equal(
        called.state(), Small(shards, device, number_format=number_format, **settings).state()
    )


@pytest.mark.parametrize("name", ["medical_cnn", "resnet18", "efficientnet_b0", "densenet121"])
def test_networks_of_the_studies_are_captured(shards, device, name):
    options = {"drop_path_rate": 0.2} if name == "efficientnet_b0" else {}

    def network() -> nn.Module:
        return build(Model(name=name, options=options), 2)

    called, captured = pair(shards, device, network=network, number_format="bf16")
    assert called.train(5) == captured.train(5)
    assert equal(called.state(), captured.state())


def test_capture_changes_nothing(shards, device):
    small = Small(shards, device, ema=0.9, number_format="fp16")
    before = small.state()
    small.capture()
    assert equal(before, small.state()[: len(before)])
    small.train(3)
    trained = small.state()
    restored = Small(shards, device, ema=0.9, number_format="fp16")
    restored.train(3)
    restored.capture()  # as after a restart
    assert equal(trained, restored.state())


def test_dropout_follows_the_seed_of_the_step(shards, device):
    small = Small(shards, device)
    small.capture()
    step = next(small.training.epoch(0))
    small.model.train(True)

    def loss(seed: int) -> int:
        small.update.sums.zero_()
        torch.manual_seed(seed)
        small.optimize(step)
        return int(small.update.sums[0])

    first, other_loss, repeated_loss = loss(1), loss(2), loss(1)
    assert len({first, other_loss}) == 2
    assert first == repeated_loss, (
        "with a rate of 0 the weights stay, so equal seeds give equal losses"
    )


@pytest.mark.parametrize("settings", [{"optimizer": "adam", "ema": 0.9}, {"optimizer": "sgd"}])
def test_an_overflow_is_skipped_by_a_graph_too(shards, device, settings):
    called, captured = pair(shards, device, number_format="fp16", **settings)
    results = [overflow(small) for small in (called, captured)]
    assert equal(results[0][1], results[1][1])
    parameters = len(list(captured.model.network.parameters()))
    before, after = results[1]
    assert equal(before[:parameters], after[:parameters]), "the step was not skipped"
    assert captured.precision.scale == 2.0**126
    for small in (called, captured):
        small.precision.scale.fill_(2.0**10)
    assert called.train(5) == captured.train(5)
    assert equal(called.state(), captured.state())


def test_evaluation_replays_with_the_average(shards, device):
    called, captured = pair(shards, device, batch=4, epochs=20, ema=0.9)
    outputs = []
    for small in (called, captured):
        small.train(5)
        small.watchdog.pet = lambda: None
        with small.average.used():
            outputs.append(
                [logits.cpu() for logits, *_ in Trainer.outputs(small, small.validation)]
            )
        small.train(5)
    assert equal(*outputs)
    assert equal(called.state(), captured.state())


def test_each_split_has_at_most_two_graphs(shards, device):
    small = Small(shards, device)
    small.capture()
    small.train(2 * small.training.steps())
    slots = small.optimize._slots
    assert len(slots) == len(small.training.shapes()) == 2
    assert all(slot.call is not slot.eager for slot in slots.values())


def test_no_step_waits_for_the_card(shards, device):
    for resident in (True, False):
        small = Small(shards, device, number_format="fp16", ema=0.9, resident=resident)
        small.capture()
        small.train(2 * small.training.steps())
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            steps = itertools.islice(small.training.epoch(2), 4)
            for number, step in enumerate(steps):
                torch.manual_seed(number)
                small.optimize(step)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def test_memory_is_flat_over_500_steps(shards, device):
    small = Small(shards, device, ema=0.9)
    small.capture()

    # Both at the end of an epoch, since batches of two sizes are made ahead.
    epoch = small.training.steps()
    small.train(7 * epoch)
    early = memory(device)
    small.train(500 // epoch * epoch)
    late = memory(device)
    assert late[0] == early[0]
    assert late[1] <= early[1]


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes of the GPU that tensors use, and that PyTorch holds; 0 on a CPU."""
    if device.type != "cuda":
        return 0, 0
    gc.collect()
    torch.cuda.synchronize()
    torch.empty(1, device=device)  # lets the allocator see which batches are no longer used
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


class Reading(nn.Module):
    """A layer that reads the device from the host."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.detach().mean() > -1e9)


def test_a_network_that_reads_the_device_is_named_and_goes_on(shards, device):
    if device.type != "cuda":
        pytest.skip("a CPU waits for nothing")
    small = Small(shards, device, network=lambda: nn.Sequential(Reading(), *small_network()))
    with pytest.raises(NotCaptured, match=rf"waits for the GPU in {re.escape(__file__)}:\d+"):
        small.capture()
    plain = Small(shards, device)
    assert small.train(5) == plain.train(5)


def network_with_activations() -> nn.Module:
    """A network whose batch norms contain their activation, as those of EfficientNet in timm."""
    from timm.layers import BatchNormAct2d

    layers = list(small_network())
    return nn.Sequential(layers[0], BatchNormAct2d(8, act_layer=nn.SiLU), *layers[3:])


@pytest.mark.parametrize("plain", [small_network, network_with_activations])
def test_synchronized_batch_norm_is_captured(shards, device, monkeypatch, plain):
    """Its statistics are gathered from a pretended second rank, which has the same."""
    if device.type != "cuda":
        pytest.skip("SyncBatchNorm refuses the CPU")

    def gather(output: torch.Tensor, own: torch.Tensor, *_: Any, **__: Any) -> None:
        output.view(2, -1).copy_(own)

    for name in ("all_gather_into_tensor", "all_gather_single"):  # before and since PyTorch 2.14
        monkeypatch.setattr(dist, name, gather, raising=False)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        called, captured = pair(
            shards, device, network=lambda: synchronized(plain(), dist.group.WORLD)
        )
        assert called.train(5) == captured.train(5)
        assert equal(called.state(), captured.state())
        graphs.release(captured)
    finally:
        dist.destroy_process_group()


@pytest.fixture
def group(device: torch.device) -> Iterator[dist.ProcessGroup]:
    """A group of one rank with the backends of a run, whose collectives are launched."""
    cuda = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=dist.HashStore(),
        rank=0,
        world_size=1,
        device_id=device if cuda else None,
    )
    yield dist.group.WORLD
    dist.destroy_process_group()


class SharedLoss:
    """A loss that takes part in a collective between forward and backward, as a detector's."""

    judges = ranks = True

    def __init__(self, small: Small) -> None:
        self._own, self._sum = small.criterion, small.model.sum_over_replicas
        self.correct = small.criterion.correct

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        factor = logits.new_ones(1)
        self._sum([factor])
        return self._own(logits, labels) * factor[0]


def test_collectives_within_a_step_are_captured(shards, device, group):
    """The loss and the batch-norm statistics are summed over one rank, which changes nothing."""
    plain, captured = Small(shards, device), Small(shards, device)
    captured.model.world.replicas, captured.model.world.replica_group = 2, group
    captured.update._criterion = SharedLoss(captured)
    try:
        captured.capture()
        assert plain.train(STEPS) == captured.train(STEPS)
        assert equal(plain.state(), captured.state())
        captured.model.waits.spans = captured.optimize(next(captured.training.epoch(0)))
        if device.type == "cuda":
            torch.cuda.synchronize()
            assert len(captured.model.waits.spans) == 2
        assert 0 < captured.model.waits.take(1) < 1
    finally:
        graphs.release(captured)  # NCCL's group would wait for the graphs forever


def test_ranks_meet_and_share_values_beside_the_gpu(device, group):
    """Groups for host tensors are bound to the GPU as well, but do not use it."""
    patient = dist.new_group(backend="gloo")
    world = World(0, 1, 0, device, None, patient, patient, 1)  # type: ignore[arg-type]
    world.meet()
    assert world.from_main({"gpus": ["a"]}) == {"gpus": ["a"]}
    assert world.gather(3) == [3]
    assert world.total(torch.tensor([2**60, 1], device=device)).tolist() == [2**60, 1]


class Breaking(nn.Module):
    """A layer that cannot be captured, by its own error or by one of CUDA."""

    def __init__(self, *, waits: bool) -> None:
        super().__init__()
        self._waits = waits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # PyTorch's own function, since ``Recorder.check`` replaces the public one.
        if x.is_cuda and torch._C._cuda_isCurrentStreamCapturing():
            if not self._waits:
                raise RuntimeError("this layer refuses capture")
            torch.cuda.current_stream().synchronize()
        return x


@pytest.mark.parametrize(
    ("waits", "cause"), [(False, "this layer refuses capture"), (True, "captur")]
)
def test_after_a_capture_that_failed_training_goes_on(shards, device, waits, cause):
    if device.type != "cuda":
        pytest.skip("a CPU captures nothing")

    def network() -> nn.Module:
        return nn.Sequential(Breaking(waits=waits), *small_network())

    with pytest.raises(NotCaptured, match=cause):
        Small(shards, device, network=network).capture()
    fresh, plain = Small(shards, device, network=network), Small(shards, device)
    assert fresh.train(STEPS) == plain.train(STEPS), "dropout draws other numbers"
    epoch = fresh.training.steps()
    fresh.train(7 * epoch - STEPS)
    early = memory(device)
    fresh.train(20 * epoch)
    assert memory(device)[1] <= early[1], "memory of batches is never used again"
