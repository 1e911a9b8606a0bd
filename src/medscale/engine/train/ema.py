"""An exponential moving average of the weights (Polyak and Juditsky 1992), which validation and prediction use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Keeps ``decay * average + (1 - decay) * weights`` for this rank's parameters; without a decay it does nothing."""

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        self._parameters, self._decay = dict(network.named_parameters()), decay
        self.weights: dict[str, Tensor] = {}
        if decay is not None:
            self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        if self._decay is not None:
            for name, average in self.weights.items():
                average.lerp_(self._parameters[name].detach(), 1 - self._decay)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within, the network has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.weights.items():
            kept = self._parameters[name].detach().clone()
            self._parameters[name].copy_(average)
            average.copy_(kept)
