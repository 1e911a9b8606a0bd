"""The interface between the training loop and a network that is spread over processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.waits import Waits
from medscale.engine.parallel.world import World

Inputs = Tensor | tuple[Tensor, ...]  # images (n,C,H,W), or images and further inputs
Micro = tuple[Inputs, Tensor]  # inputs and labels (n) of a micro-batch
# Losses are summed as integers in units of 1/FIXED. Integer sums are exact, so neither the order of
# the ranks nor a restart changes them. The losses of a training that diverges exceed 64 bits, so
# each loss is written as four digits to the base 2**40, which hold any 32-bit float.
FIXED, BASE, DIGITS = 2**24, 2**40, 4
SUMS = DIGITS + 2  # elements of the tensor that ``loss_sums`` returns


class Criterion(Protocol):
    """A loss of outputs (n,…) against targets (n,…) of a batch of n images."""

    judges: bool  # whether each image is right or wrong, so that there is an accuracy
    # whether the epoch with the smallest validation loss is the best one; otherwise the last epoch
    # is
    ranks: bool

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """Return the sum of n losses, float32 scalar."""

    def correct(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """Return the number of correct images, int64 scalar; 0 if images are not judged."""

    def join(self) -> None:
        """Take part in the loss's collectives for a micro-batch without images on this replica."""


class ParallelModel(ABC):
    """A network on this rank and its peers.

    Attributes:
        network: the plain module, or this rank's part of it, with the parameter names of the whole
            network.
        waits: the time in which this rank waits for others.
        shares_forward: whether all ranks must call ``logits`` together.
        not_captured: why a step cannot be captured as a CUDA graph; empty if it can.
        not_tried: why ``recipe.graph: auto`` does not try to capture a step; empty if it does.
    """

    shares_forward = False
    not_captured = not_tried = ""

    def __init__(self, network: nn.Module, world: World, precision: Precision) -> None:
        self.network, self.world, self.precision = network, world, precision
        self.waits = Waits(world.device)

    @abstractmethod
    def backward(self, micros: Sequence[Micro], criterion: Criterion, size: int) -> Tensor:
        """Store the gradient of the mean loss over the global batch in ``.grad``.

        Args:
            micros: this replica's micro-batches.
            criterion: sum of losses of a micro-batch.
            size: images of the step over all replicas.

        Returns:
            The sum of ``loss_sums`` over this rank's micro-batches: int64, shape SUMS, on the
            device. Zeros on ranks that do not compute the output.
        """

    @abstractmethod
    def logits(self, inputs: Inputs) -> Tensor | None:
        """Return outputs (float32, shape n,K) without gradient; None on ranks without output."""

    @abstractmethod
    def warm_up(self, inputs: Inputs) -> None:
        """Do the one-time work of a first step, such as DDP's buckets, without any training."""

    def train(self, mode: bool) -> None:
        """Switch between training and evaluation mode; frozen parts stay in evaluation mode."""
        self.network.train(mode)
        for part in self.network.modules():
            parameters = list(part.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                part.eval()

    def gradients(self) -> list[Tensor]:
        """Return this rank's gradients (or shards of them) as tensors to be scaled in place."""
        return [p.grad for p in self.network.parameters() if p.grad is not None]

    def grad_norm(self) -> Tensor:
        """Return the Euclidean norm of the whole gradient on every rank, float32 scalar."""
        return torch.nn.utils.get_total_norm(
            [p.grad for p in self.network.parameters() if p.grad is not None]
        )

    def average_buffers(self, share: float) -> None:
        """Average batch-norm statistics over replicas, weighted by their ``share`` of the step.

        All replicas then hold the same statistics, and so does a checkpoint of any of them. The
        running mean becomes that of the global batch. The running variance becomes the mean of the
        replicas' variances, which leaves out the spread between their means; SyncBatchNorm would
        include it.
        """
        buffers = [b for b in self.network.buffers() if b.is_floating_point() and b.numel()]
        if self.world.replicas == 1 or not buffers:
            return
        for buffer in buffers:
            buffer.mul_(share)
        self.sum_over_replicas(buffers)

    def uncompiled(self) -> AbstractContextManager[Any]:
        """Return the context of passes that are not compiled, as they are of other shapes.

        Each shape is compiled by itself, which takes longer than these passes save.
        """
        return torch.compiler.set_stance("force_eager") if self._is_compiled else nullcontext()

    @cached_property
    def _is_compiled(self) -> bool:
        return any(part._compiled_call_impl is not None for part in self.network.modules())

    def sum_over_replicas(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over replicas, in one collective."""
        if self.world.replicas == 1:
            return
        start = self.waits.mark()
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat, group=self.world.replica_group)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
        self.waits.add(start)


class WholeModel(ParallelModel):
    """Every rank calls the whole network. Strategies differ in how gradients are exchanged.

    Args:
        network: the plain module.
        world: this rank and its peers.
        precision: number format.
        call: the module or function to call for a forward pass; None: the network itself.
    """

    averages = False  # whether the exchange of gradients divides by the number of replicas

    def __init__(
        self,
        network: nn.Module,
        world: World,
        precision: Precision,
        call: Callable[[Inputs], Tensor] | None = None,
    ) -> None:
        super().__init__(network, world, precision)
        self.call = network if call is None else call
        self._divisor = world.replicas if self.averages else 1

    def backward(self, micros: Sequence[Micro], criterion: Criterion, size: int) -> Tensor:
        """See ``ParallelModel.backward``."""
        sums = torch.zeros(SUMS, dtype=torch.int64, device=self.world.device)
        for number, (inputs, labels) in enumerate(micros):
            with self.exchange(number == len(micros) - 1):
                if len(labels) == 0:
                    # The step has fewer images than replicas: join the collectives with weight 0.
                    self._pass_with_weight_0(blank(inputs, 2), criterion.join)
                    continue
                logits = self._forward(inputs)
                loss = criterion(logits, labels)
                self.precision.scaled(loss * (self._divisor / size)).backward()
                self._after_backward()
            sums += loss_sums(loss, criterion.correct(logits, labels))
        return sums

    def exchange(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a backward pass; the last one of a step exchanges gradients."""
        return nullcontext()

    def warm_up(self, inputs: Inputs) -> None:
        """See ``ParallelModel.warm_up``."""
        self._pass_with_weight_0(inputs, lambda: None)

    def _pass_with_weight_0(self, inputs: Inputs, join: Callable[[], None]) -> None:
        """Do a pass that adds 0 to gradients and keeps statistics.

        ``join`` is called between forward and backward, where other replicas compute their losses,
        since a process group needs the same order of collectives on all ranks.
        """
        self.train(False)
        with self.uncompiled():
            outputs = self._forward(inputs)
            join()
            (outputs.sum() * 0).backward()
        self._after_backward()
        self.train(True)

    def logits(self, inputs: Inputs) -> Tensor | None:
        """See ``ParallelModel.logits``."""
        with torch.no_grad(), self.uncompiled():
            return self._forward(inputs)

    def _forward(self, inputs: Inputs) -> Tensor:
        with self.precision.autocast():
            return self.call(inputs).float()

    def _after_backward(self) -> None:
        """Do the work that follows each backward pass."""


def blank(like: Inputs, count: int) -> Inputs:
    """Return ``count`` inputs of zeros with the shape of other inputs."""
    if isinstance(like, Tensor):
        return like.new_zeros((count, *like.shape[1:]))
    return tuple(part.new_zeros((count, *part.shape[1:])) for part in like)


def loss_sums(loss: Tensor, correct: Tensor) -> Tensor:
    """Return the loss and the counts of a micro-batch as integers that can be added exactly.

    Args:
        loss: the sum of the losses of its images, a scalar.
        correct: the number of its images that are classified correctly, a scalar.

    Returns:
        int64, shape SUMS: the DIGITS digits of the loss in units of 1/FIXED, the lowest first (0 if
        the loss is not finite); ``correct``; 1 if the loss is not finite, else 0.
    """
    loss = loss.detach().double()
    finite = loss.nan_to_num(0.0, 0.0, 0.0)
    # A GPU spends its time on the number of these operations, so they treat all digits together.
    shifted = [(finite * FIXED).round()]
    for _ in range(DIGITS - 1):
        shifted.append(shifted[-1] / BASE)
    digits = torch.stack(shifted).floor()
    digits[:-1] -= digits[1:] * BASE
    return torch.cat([digits.long(), torch.stack([correct, (finite != loss).long()])])


def whole_sums(parts: list[int]) -> tuple[int, int, int]:
    """Return added ``loss_sums`` with the digits of the loss joined to one number.

    Args:
        parts: the sum of ``loss_sums`` over micro-batches, SUMS integers.

    Returns:
        The sum of the losses in units of 1/FIXED, the number of images that are classified
        correctly, and the number of micro-batches whose loss is not finite.
    """
    *digits, correct, not_finite = parts
    units = sum(digit * BASE**power for power, digit in enumerate(digits))
    return units, correct, not_finite
