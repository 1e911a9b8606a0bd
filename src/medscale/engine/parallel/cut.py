"""Where a pipeline cuts a network: block costs are measured, and the slowest stage is made as fast as possible."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError
from medscale.engine.parallel.precision import Precision

REPEATS = 3
Block = tuple[str, nn.Module]


@dataclass(frozen=True)
class Cut:
    """A chain of blocks, measured and cut into stages.

    Attributes:
        bounds: numbers of the blocks at which stages begin, then the number of blocks.
        seconds: measured cost of each block, forward and backward.
        shapes: shape of one image's activation before each block, then after the last.
        dtypes: names of their types.
    """

    bounds: list[int]
    seconds: list[float]
    shapes: list[list[int]]
    dtypes: list[str]


def measure(blocks: Sequence[Block], images: Tensor, precision: Precision, stages: int) -> Cut:
    """Time each block on ``images`` (float32, shape n,C,H,W) and cut the chain into ``stages``.

    Copies are timed, so that neither statistics nor gradients of the network change.

    Raises:
        MedscaleError: when there are fewer blocks with parameters than stages.
    """
    starts = [
        number for number, (_, block) in enumerate(blocks) if any(True for _ in block.parameters())
    ]
    if len(starts) < stages:
        raise MedscaleError(
            f"the network has {len(starts)} blocks with parameters, which cannot make {stages} stages; "
            "ask for fewer devices"
        )
    seconds, borders, x = [], [images], images
    for _, block in blocks:
        cost, x = _time(copy.deepcopy(block), x, precision)
        seconds.append(cost)
        borders.append(x)
    shapes = [list(border.shape[1:]) for border in borders]
    starts = [0, *starts[1:], len(blocks)]  # what has no parameters goes with the block before it
    together = [sum(seconds[start:end]) for start, end in pairwise(starts)]
    bounds = [starts[bound] for bound in balance(together, stages)]
    return Cut(
        bounds, seconds, shapes, [str(border.dtype).removeprefix("torch.") for border in borders]
    )


def balance(costs: Sequence[float], stages: int) -> list[int]:
    """Cut a chain into consecutive stages so that the largest sum of costs is smallest (linear partition).

    Returns:
        The first block of each stage, then the number of blocks; no stage is empty.
    """
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    blocks = len(costs)
    best: list[list[tuple[float, int]]] = [[(total[end], 0) for end in range(blocks + 1)]]
    for stage in range(1, stages):
        row = [(float("inf"), 0)] * (blocks + 1)
        for end in range(stage + 1, blocks + 1):
            row[end] = min(
                (max(best[-1][at][0], total[end] - total[at]), at) for at in range(stage, end)
            )
        best.append(row)
    bounds = [blocks]
    for row in reversed(best):
        bounds.append(row[bounds[-1]][1])
    return bounds[::-1]


def _time(block: nn.Module, x: Tensor, precision: Precision) -> tuple[float, Tensor]:
    """Smallest seconds of a forward and backward pass, and the output."""
    times = []
    for _ in range(REPEATS):
        given = x.detach().requires_grad_().clone()  # no leaf: blocks may work in place
        _synchronize(x)
        start = perf_counter()
        with precision.autocast():
            out = block(given)
        out.sum().backward()
        _synchronize(x)
        times.append(perf_counter() - start)
    return min(times), out.detach()


def _synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
