"""Exponential moving average of the weights (Polyak and Juditsky 1992), used for validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average ``decay * average + (1 - decay) * weights`` of this rank's parameters.

    Without a decay nothing is averaged, and validation uses the weights themselves.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        self._parameters, self._decay = dict(network.named_parameters()), decay
        self.weights: dict[str, Tensor] = {}
        if decay is not None:
            self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after an optimizer step."""
        if self._decay is not None:
            for name, average in self.weights.items():
                average.lerp_(self._parameters[name].detach(), 1 - self._decay)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Give the network the averaged weights within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.weights.items():
            weights = self._parameters[name].detach().clone()
            self._parameters[name].copy_(average)
            average.copy_(weights)
