"""A replicate's tensors as one dictionary that any strategy and any number of ranks can write and read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from medscale.engine.parallel.strategies import Strategy
from medscale.engine.parallel.world import World
from medscale.engine.train.ema import Average

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Tensors:
    """Weights, optimizer state, averaged weights and best weights of this rank, under the whole network's names."""

    def __init__(
        self, strategy: Strategy, optimizer: torch.optim.Optimizer, average: Average
    ) -> None:
        self._network, self._optimizer, self._average = strategy.network, optimizer, average
        self.best: dict[str, Tensor] = {}

    def keep_best(self) -> None:
        """Remember the weights and statistics as they are now (under ``average.used()``: the averaged ones)."""
        self.best = {name: value.detach().clone() for name, value in self._weights().items()}

    def collect(self, *, with_best: bool) -> dict[str, Any]:
        """What a checkpoint holds; to be filled when reading one."""
        if with_best and not self.best:
            self.keep_best()
        return {
            "model": get_model_state_dict(self._network),
            "optimizer": get_optimizer_state_dict(self._network, self._optimizer, options=FLAT),
            "average": self._average.weights,
            "best": self.best if with_best else {},
        }

    def restore(self, collected: dict[str, Any]) -> None:
        """Put what was read into network and optimizer; averaged and best weights were read in place."""
        set_model_state_dict(self._network, collected["model"])
        set_optimizer_state_dict(
            self._network, self._optimizer, collected["optimizer"], options=FLAT
        )

    def use_best(self) -> None:
        """Load the best weights into the network."""
        if self.best:
            set_model_state_dict(self._network, dict(self.best))

    def whole(self, world: World) -> dict[str, Tensor] | None:
        """The whole network's weights on the host, on rank 0; None elsewhere. All ranks call it."""
        mine = {
            name: _full(value).to("cpu").contiguous() for name, value in self._weights().items()
        }
        parts = world.gather(
            mine if world.replica == 0 and (world.stage > 0 or world.is_main) else {}
        )
        return (
            None
            if parts is None
            else {name: value for part in parts for name, value in part.items()}
        )

    def _weights(self) -> dict[str, Tensor]:
        state = get_model_state_dict(self._network)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _full(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
