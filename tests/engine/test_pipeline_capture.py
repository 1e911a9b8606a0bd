"""A pipeline's schedule as a capture meets it, tested on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.layers import DropPath
from torch import distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.pipelining import schedules
from torch.testing._internal.distributed.fake_pg import FakeStore
from torchvision.ops import StochasticDepth

from medscale.data.loader import Batch
from medscale.engine.models.registry import build, stages
from medscale.engine.parallel.cut import Cut
from medscale.engine.parallel.model import WholeModel
from medscale.engine.parallel.pipeline import RESEEDS, Pipeline, _is_random
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies.strategy import Setup
from medscale.engine.plan import Model, Recipe
from medscale.engine.train.ema import Average
from medscale.engine.train.recipe import CrossEntropy, optimizer
from medscale.engine.train.step import OptimizerStep

pytestmark = pytest.mark.usefixtures("one_thread")


CPU = torch.device("cpu")


class Transfers:
    """Batches of sends and receives of one stage, with the waits for them."""

    def __init__(self):
        self.received, self.unwaited = [], 0

    def start(self, operations, desc=None):
        self.received += [op.tensor for op in operations if op.op is dist.irecv]
        self.unwaited += len(operations)
        return [SimpleNamespace(wait=self.wait) for _ in operations]

    def wait(self):
        self.unwaited -= 1


def pipeline(stage, schedule, dropout=0.0):
    """Return one of two stages of a network, which is cut in the middle, on fake tensors."""
    parts = [torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)]
    parts += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Dropout(dropout)]
    network = torch.nn.Sequential(*parts, torch.nn.Linear(4, 2))
    blocks = [(name, block) for name, block in network.named_children()]
    shapes = [[3, 8, 8], [4, 8, 8], [4, 8, 8], [4, 1, 1], [4], [4], [2]]
    cut = Cut([0, 2, 6], [1.0] * 6, shapes, ["float32"] * 7)
    world = SimpleNamespace(
        device=CPU,
        stage=stage,
        replicas=1,
        mesh=SimpleNamespace(get_group=lambda _: dist.group.WORLD),
    )
    return Pipeline(
        Setup(
            network=network,
            world=world,
            precision=Precision("fp32", CPU),
            stages=2,
            schedule=schedule,
            microbatches=3,
            channels_last=True,
            compile=False,
            chain=lambda: (blocks, cut),
        )
    )


@pytest.fixture
def two_ranks(request):
    """Pretend to be a rank of a process group of two, whose collectives do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=request.param, world_size=2)
    yield request.param
    dist.destroy_process_group()


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("two_ranks", [0, 1], indirect=True)
def test_a_schedule_has_nothing_that_a_capture_forbids(two_ranks, schedule, monkeypatch):
    """It waits for each transfer within the step, keeps its buffers, and reads no tensor."""
    transfers = Transfers()
    monkeypatch.setattr(schedules, "_batch_p2p", transfers.start)
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: None)
    recipe = Recipe(clip_norm=1.0, graph="on")
    with FakeTensorMode():
        model = pipeline(two_ranks, schedule)
        assert model.not_captured == ""
        step = OptimizerStep(
            model,
            optimizer(model.network, recipe, model.precision),
            Average(model.network, recipe.ema),
            model.precision,
            CrossEntropy(recipe, np.array([1, 2]), CPU),
            recipe.clip_norm,
        )
        labels = torch.zeros(8, dtype=torch.int64)  # micro-batches of three and of two images
        images = torch.zeros(8, 3, 8, 8).contiguous(memory_format=torch.channels_last)
        step([Batch(images, labels, labels)], 8)  # the schedules are made
        monkeypatch.setattr(torch, "tensor", None)  # a copy from the host waits for a GPU
        monkeypatch.setattr(torch, "manual_seed", None)  # refused during a capture
        buffers = []
        for _ in range(2):
            transfers.received.clear()
            step([Batch(images, labels, labels)], 8)
            buffers.append([id(tensor) for tensor in transfers.received])
            assert transfers.unwaited == 0
    assert len(buffers[0]) == 3, "one transfer to this stage for each micro-batch"
    assert buffers[0] == buffers[1]


@pytest.mark.parametrize("two_ranks", [0], indirect=True)
def test_micro_batches_of_both_sizes_have_dropout_of_their_own(two_ranks, monkeypatch):
    model, runs = pipeline(two_ranks, "gpipe", dropout=0.1), []

    def run(images, labels, size, count):
        assert len(images) == len(labels) == size * count
        runs.extend(
            (labels[chunk * size].item(), model.stage.before + chunk) for chunk in range(count)
        )

    monkeypatch.setattr(model, "_run", run)
    labels = torch.arange(8)
    model.backward([(torch.zeros(8, 3, 8, 8), labels)], None, 8)
    assert [first for first, _ in runs] == [0, 3, 6]  # of three, three and two images
    assert len({number for _, number in runs}) == 3


def test_statistics_are_weighted_by_the_images_of_a_replica():
    """Of 17 images a replica has 9 and the other one 8."""
    buffers = [torch.tensor([1.0, 2.0]), torch.tensor(4.0)]
    others = [torch.tensor([5.0, 6.0]), torch.tensor(8.0)]
    network = nn.Module()
    for number, buffer in enumerate(buffers):
        network.register_buffer(f"mean{number}", buffer)
    network.register_buffer("batches", torch.tensor(3))  # a number of batches is no statistic
    world = SimpleNamespace(device=CPU, replicas=2)
    model = WholeModel(network, world, Precision("fp32", CPU))

    def add_other_replica(tensors):
        for tensor, other in zip(tensors, others, strict=True):
            tensor.add_(other * (8 / 17))

    model.sum_over_replicas = add_other_replica
    model.average_buffers(9 / 17)
    assert network.mean0.tolist() == pytest.approx([(9 + 40) / 17, (18 + 48) / 17])
    assert network.mean1.item() == pytest.approx((36 + 64) / 17)
    assert network.batches.item() == 3


@pytest.mark.parametrize("two_ranks", [0, 1], indirect=True)
def test_dropout_in_any_stage_keeps_all_stages_from_a_capture(two_ranks):
    assert pipeline(two_ranks, "gpipe", dropout=0.1).not_captured == RESEEDS


@pytest.mark.parametrize(
    ("name", "options", "is_random"),
    [
        ("resnet18", {}, False),
        ("densenet121", {}, False),
        ("densenet121", {"proj_drop_rate": 0.1}, True),  # which its layers call as a function
        ("resnet18", {"drop_rate": 0.1}, True),
        ("efficientnet_b0", {"drop_path_rate": 0.2}, True),
        ("tiny_cnn", {}, False),
    ],
)
def test_the_blocks_that_draw_random_numbers_are_known(name, options, is_random):
    with torch.device("meta"):
        blocks = stages(build(Model(name=name, options=options), 2))
    assert any(_is_random(block) for _, block in blocks) == is_random


def test_a_block_is_random_by_dropout_or_stochastic_depth():
    drawing = [nn.Dropout(0.1), nn.Dropout2d(0.1), DropPath(0.1), StochasticDepth(0.1, "row")]
    drawing += [nn.MultiheadAttention(4, 2, dropout=0.1), nn.AlphaDropout(0.1)]
    certain = [nn.Dropout(0.0), DropPath(0.0), nn.ReLU(), nn.MultiheadAttention(4, 2)]
    assert [_is_random(module) for module in (*drawing, *certain)] == [True] * 6 + [False] * 4
