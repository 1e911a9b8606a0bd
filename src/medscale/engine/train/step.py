"""One optimizer step on tensors of the device; the host decides nothing in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medscale.data.loader import Batch
from medscale.engine.parallel.model import SUMS, Criterion, ParallelModel
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.waits import Spans
from medscale.engine.train.ema import Average


class OptimizerStep:
    """Forward, backward, exchange, clipping, optimizer, averages and sums of one step.

    Everything that changes from step to step is a tensor: images and labels, the learning rate
    (``recipe.set_rate``), the loss scale. The generator of random numbers is seeded before each
    step. The same call therefore trains a CPU, a GPU, and a GPU by a captured graph.

    Attributes:
        sums: this rank's sums since they were set to zero, as ``ParallelModel.backward`` returns
            them.
    """

    def __init__(
        self,
        model: ParallelModel,
        optimizer: torch.optim.Optimizer,
        average: Average,
        precision: Precision,
        criterion: Criterion,
        clip_norm: float | None,
    ) -> None:
        self._model, self._optimizer, self._average = model, optimizer, average
        self._precision, self._criterion, self._limit = precision, criterion, clip_norm
        self.sums = torch.zeros(SUMS, dtype=torch.int64, device=model.world.device)

    def __call__(self, batches: Sequence[Batch], size: int) -> Spans:
        """Train on the micro-batches of this replica.

        Args:
            batches: the micro-batches.
            size: images of the step over all replicas.

        Returns:
            The events between which this rank waits for other ranks in the step, on a GPU.
        """
        self._model.waits.begin_step()
        self._optimizer.zero_grad(set_to_none=True)
        micros = [(batch.inputs, batch.labels) for batch in batches]
        sums = self._model.backward(micros, self._criterion, size)
        self._model.average_buffers(sum(len(batch.labels) for batch in batches) / size)
        self._limit_gradients()
        self._optimizer.step()
        self._average.update(self._precision.overflow if self._precision.scaling else None)
        self.sums += sums
        return self._model.waits.end_step()

    def _limit_gradients(self) -> None:
        """Undo loss scaling and limit the gradient's norm."""
        if self._limit is None and not self._precision.scaling:
            return
        scale = self._precision.scale
        norm = self._model.grad_norm() / scale
        factor = 1 if self._limit is None else (self._limit / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(self._model.gradients(), factor / scale)
        self._precision.update(norm)

    def state(self) -> list[torch.Tensor]:
        """Return all tensors that a step changes, as far as they exist."""
        network = self._model.network
        return [
            *network.parameters(),
            *network.buffers(),
            *self._average.weights.values(),
            *self._precision.tensors,
            self.sums,
            *optimizer_state(self._optimizer),
        ]


def optimizer_state(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the tensors of an optimizer's state; it has none before the first step."""
    return [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
