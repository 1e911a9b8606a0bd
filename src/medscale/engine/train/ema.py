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
    def update(self, skipped: Tensor | None = None) -> None:
        """Update the average with the weights after an optimizer step.

        Args:
            skipped: scalar on the device, not 0 if the step was skipped; None: no step is.
        """
        if self._decay is None:
            return
        weights = [self._parameters[name].detach() for name in self.weights]
        averages = list(self.weights.values())
        previous = [average.clone() for average in averages] if skipped is not None else []
        torch._foreach_lerp_(averages, weights, 1 - self._decay)
        if skipped is not None:
            for average, value in zip(averages, previous, strict=True):
                average.copy_(torch.where(skipped.bool(), value, average))

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
