"""The cut of a network into stages, its micro-batches, and dropout that does not depend on it."""

from __future__ import annotations

from functools import partial
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.engine.models.registry import build, stages
from medscale.engine.parallel.cut import balance, measure
from medscale.engine.parallel.pipeline import Stage, micro_batches
from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Model

CPU = torch.device("cpu")


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=10), st.integers(1, 4))
def test_balance_is_the_best_linear_partition(costs, expected):
    expected = min(expected, len(costs))
    bounds = balance(costs, expected)
    assert bounds[0] == 0
    assert bounds[-1] == len(costs)
    assert all(a < b for a, b in pairwise(bounds))

    def slowest(cut):
        return max(sum(costs[a:b]) for a, b in pairwise(cut))

    best = min(
        slowest([0, *inner, len(costs)])
        for inner in combinations(range(1, len(costs)), expected - 1)
    )
    assert slowest(bounds) == pytest.approx(best)


@given(st.integers(0, 200), st.integers(1, 40))
def test_micro_batches_differ_by_at_most_one_and_cover_each_image_once(images, parts):
    runs = micro_batches(images, parts)
    covered = [i for start, size, count in runs for i in range(start, start + size * count)]
    assert covered == list(range(images))
    sizes = [size for _, size, count in runs for _ in range(count)]
    assert len(sizes) == min(parts, images)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_every_stage_of_a_cut_has_parameters_and_too_many_stages_are_refused():
    network = build(Model(name="tiny_cnn"), 2)
    blocks, images = stages(network), torch.randn(2, 3, 16, 16)
    before = [p.clone() for p in network.parameters()]
    for count in (1, 2, 3, 4):
        cut = measure(blocks, images, Precision("fp32", CPU), count)
        for first, last in pairwise(cut.bounds):
            assert any(list(block.parameters()) for _, block in blocks[first:last])
        assert cut.shapes[0] == [3, 16, 16]
        assert cut.shapes[-1] == [2]
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None for p in network.parameters())
    with pytest.raises(MedscaleError, match="4 blocks with parameters, which cannot make 5 stages"):
        measure(blocks, images, Precision("fp32", CPU), 5)


class Clock:
    """A simulated clock: real seconds of small blocks are those of the machine's other work."""

    seconds = 0.0

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds


class TimedBlock(nn.Linear):
    """A layer whose passes take given seconds of a clock."""

    def __init__(self, clock: Clock, forward_s: float, backward_s: float) -> None:
        super().__init__(4, 4)
        self.seconds = partial(clock.pass_by, forward_s), partial(clock.pass_by, backward_s)

    def __deepcopy__(self, memo):  # ``measure`` times copies, which share the clock
        return self

    def forward(self, images):
        forward, backward = self.seconds
        forward()
        output = super().forward(images)
        output.register_hook(lambda _: backward())
        return output


@pytest.mark.parametrize(("forward_s", "backward_s"), [(0.02, 0.001), (0.001, 0.02)])
def test_a_slow_block_decides_the_cut(forward_s, backward_s, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("medscale.engine.parallel.cut.perf_counter", lambda: clock.seconds)
    fast, slow = (0.001, 0.001), (forward_s, backward_s)
    blocks = [
        (str(number), TimedBlock(clock, *passes))
        for number, passes in enumerate((fast, slow, fast, fast))
    ]
    cut = measure(blocks, torch.randn(2, 4), Precision("fp32", CPU), 2)
    assert cut.bounds == [0, 2, 4]
    assert max(cut.seconds) == cut.seconds[1] >= 0.02


def test_dropout_in_a_pipeline_does_not_depend_on_the_cut():
    blocks = [(str(number), nn.Dropout(0.5)) for number in range(4)]
    precision, images = Precision("fp32", CPU), torch.ones(64, 64)

    def output(*bounds, chunk=0, before=0, seed=5):
        x = images
        for first, last in pairwise([0, *bounds, 4]):
            stage = Stage(blocks[first:last], first, precision, channels_last=False).train()
            stage.seed, stage.before, stage.chunk = seed, before, chunk
            x = stage(x)
        return x

    whole = output()
    assert 0.03 < (whole > 0).float().mean() < 0.1, "one pixel of 16 stays"
    for bounds in ((1,), (2,), (3,), (1, 2, 3)):
        assert output(*bounds).equal(whole)
    for other in ({"chunk": 1}, {"before": 1}, {"seed": 6}):
        assert not output(2, **other).equal(whole)
