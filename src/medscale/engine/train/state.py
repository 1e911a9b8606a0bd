"""The tensors of a replicate in a form that any strategy and number of ranks can write and read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

from medscale.engine.parallel.model import ParallelModel
from medscale.engine.parallel.world import World
from medscale.engine.train.ema import Average
from medscale.engine.train.step import OptimizerStep

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Tensors:
    """This rank's weights, optimizer state, averaged weights and best weights.

    All have the parameter names of the whole network.
    """

    def __init__(
        self, model: ParallelModel, optimizer: torch.optim.Optimizer, average: Average
    ) -> None:
        self._network, self._optimizer, self._average = model.network, optimizer, average
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self.best: dict[str, Tensor] = {}

    def keep_best(self) -> None:
        """Keep a copy of the current weights and statistics as the best ones."""
        self.best = {name: value.detach().clone() for name, value in self._weights().items()}

    def collect(self, *, with_best: bool) -> dict[str, Any]:
        """Return the tensors of a checkpoint, to be written or to be filled by reading one.

        The optimizer's settings are those of the plan and are left out: PyTorch repeats them for
        each parameter, and DCP writes them slowly, one by one.
        """
        if with_best and not self.best:
            self.keep_best()
        optimizer = self._optimizer_state()
        return {
            "model": get_model_state_dict(self._network),
            "optimizer": {key: optimizer[key] for key in optimizer if key.startswith("state.")},
            "average": self._average.weights,
            "best": self.best if with_best else {},
        }

    def restore(self, collected: dict[str, Any]) -> None:
        """Load weights and optimizer state; averaged and best weights were filled in place."""
        set_model_state_dict(self._network, collected["model"])
        state = self._optimizer_state() | collected["optimizer"]
        set_optimizer_state_dict(self._network, self._optimizer, state, options=FLAT)
        # PyTorch copied the tensor of the learning rate, but a captured step reads this one.
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate

    def use_best(self) -> None:
        """Load the best weights into the network."""
        if self.best:
            set_model_state_dict(self._network, dict(self.best))

    def whole(self, world: World) -> dict[str, Tensor] | None:
        """Return the whole network's weights on the host on rank 0; all ranks call this.

        Rank 0 and the other stages of its replica send their weights.
        """
        weights = {
            name: _full(value).to("cpu").contiguous() for name, value in self._weights().items()
        }
        sends = world.replica == 0 and (world.stage > 0 or world.is_main)
        parts = world.gather(weights if sends else {})
        if parts is None:
            return None
        return {name: value for part in parts for name, value in part.items()}

    def _optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's state and settings, an entry for each parameter and quantity.

        Names are such as ``state.conv.weight.exp_avg`` and ``param_groups.conv.weight.lr``.
        """
        return get_optimizer_state_dict(self._network, self._optimizer, options=FLAT)

    def _weights(self) -> dict[str, Tensor]:
        state = get_model_state_dict(self._network)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}


@contextmanager
def unchanged(step: OptimizerStep) -> Iterator[None]:
    """Give all tensors that a step changes their values back after the context."""
    before = [(tensor, tensor.detach().clone()) for tensor in step.state()]
    tensor_ids = {id(tensor) for tensor, _ in before}
    try:
        yield
    finally:
        for tensor, value in before:
            tensor.detach().copy_(value)
        for tensor in step.state():
            if id(tensor) not in tensor_ids:
                tensor.zero_()  # the optimizer's state, as it is before the first step


def _full(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
