"""Transfer learning: train only the last part of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

Block = tuple[str, nn.Module]


def freeze(chain: Sequence[Block], trained: Literal["last_block", "last_layer"]) -> None:
    """Freeze all weights of a network but those of its last part.

    Args:
        chain: the network's blocks in order, as ``registry.stages`` returns them.
        trained: ``last_layer``: the last block with weights, which maps features to logits.
            ``last_block``: the last block with several convolutions and all blocks after it; in a
            network without such blocks, the last convolution and all blocks after it.
    """
    begin = _last(chain, lambda part: any(True for _ in part.parameters()))
    if trained == "last_block":
        begin = _last(chain, lambda part: _convolutions(part) > 1)
        if begin is None:
            begin = _last(chain, lambda part: _convolutions(part) > 0)
    for _, part in chain[: begin or 0]:
        part.requires_grad_(False)


def _last(chain: Sequence[Block], fits: Callable[[nn.Module], bool]) -> int | None:
    return max((number for number, (_, part) in enumerate(chain) if fits(part)), default=None)


def _convolutions(part: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in part.modules())
