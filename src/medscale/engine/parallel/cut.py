"""Where a pipeline cuts a network: blocks are timed, and the slowest stage is made fastest."""

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
    """A chain of blocks, timed and cut into stages."""

    bounds: list[int]  # number of the first block of each stage, then the number of blocks
    seconds: list[float]  # measured time of each block, forward and backward
    # shape of one image's activation before each block, then after the last one
    shapes: list[list[int]]
    dtypes: list[str]  # names of the activations' types


Chain = tuple[Sequence[Block], Cut]  # a network as blocks, and where to cut it


def measure(blocks: Sequence[Block], images: Tensor, precision: Precision, stages: int) -> Cut:
    """Time each block on ``images`` (float32, shape n,C,H,W) and cut the chain into ``stages``.

    Copies of the blocks are timed, so the network's statistics and gradients do not change. Raises
    MedscaleError when there are fewer blocks with parameters than stages.
    """
    starts = [
        number for number, (_, block) in enumerate(blocks) if any(True for _ in block.parameters())
    ]
    if len(starts) < stages:
        raise MedscaleError(
            f"the network has {len(starts)} blocks with parameters, which cannot make {stages} "
            "stages; ask for fewer devices"
        )
    seconds, activations = [], [images]
    for _, block in blocks:
        cost, output = _time(copy.deepcopy(block), activations[-1], precision)
        seconds.append(cost)
        activations.append(output)
    # A block without parameters goes with the block before it.
    starts = [0, *starts[1:], len(blocks)]
    group_costs = [sum(seconds[start:end]) for start, end in pairwise(starts)]
    return Cut(
        bounds=[starts[bound] for bound in balance(group_costs, stages)],
        seconds=seconds,
        shapes=[list(activation.shape[1:]) for activation in activations],
        dtypes=[str(activation.dtype).removeprefix("torch.") for activation in activations],
    )


def balance(costs: Sequence[float], stages: int) -> list[int]:
    """Cut a chain into consecutive stages that minimize the largest sum of costs.

    This is the linear partition problem, solved by dynamic programming.

    Returns:
        The first block of each stage, then the number of blocks; no stage is empty.
    """
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    blocks = len(costs)
    # best[stage][end]: smallest maximum of the stages so far up to block `end`, and the last cut.
    best: list[list[tuple[float, int]]] = [[(total[end], 0) for end in range(blocks + 1)]]
    for stage in range(1, stages):
        row = [(float("inf"), 0)] * (blocks + 1)
        for end in range(stage + 1, blocks + 1):
            row[end] = min(
                (max(best[-1][start][0], total[end] - total[start]), start)
                for start in range(stage, end)
            )
        best.append(row)
    bounds = [blocks]
    for row in reversed(best):
        bounds.append(row[bounds[-1]][1])
    return bounds[::-1]


def _time(block: nn.Module, inputs: Tensor, precision: Precision) -> tuple[float, Tensor]:
    """Return the smallest time of a forward and backward pass in seconds, and the output."""
    times = []
    for _ in range(REPEATS):
        copied = inputs.detach().requires_grad_().clone()  # no leaf: blocks may work in place
        _synchronize(inputs)
        start = perf_counter()
        with precision.autocast():
            output = block(copied)
        output.sum().backward()
        _synchronize(inputs)
        times.append(perf_counter() - start)
    return min(times), output.detach()


def _synchronize(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
