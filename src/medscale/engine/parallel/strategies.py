"""One function a strategy wraps a plain module from outside; the training loop sees one interface for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.world import World

Inputs = (
    Tensor | tuple[Tensor, ...]
)  # images (n,C,H,W), or images and what else the network takes beside them
Micro = tuple[Inputs, Tensor]  # inputs and labels (n) of one micro-batch
FIXED = (
    2**24
)  # losses are summed as integers in this unit: exact, so that no order and no restart changes a sum


class Criterion(Protocol):
    """What a network's outputs (n,…) are worth against the targets (n,…) of a batch of n images.

    Attributes:
        judges: whether an image is right or wrong, so that there is an accuracy.
        ranks: whether the epoch with the smallest validation loss is the best; else the last one is.
    """

    judges: bool
    ranks: bool

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """Sum of n losses, float32 scalar."""

    def correct(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """Number of images that are right, int64 scalar; 0 where nothing is judged."""


class Strategy(ABC):
    """A network on this rank and its peers.

    Attributes:
        network: the plain module, or this rank's part of it, under the parameter names of the whole network.
        waited_s: seconds this rank spent waiting for others since the counter was last set to 0; None: not measured.
    """

    waited_s: float | None = 0.0
    shares_forward = False  # whether ranks must call ``logits`` together

    def __init__(self, network: nn.Module, world: World, precision: Precision) -> None:
        self.network, self.world, self.precision = network, world, precision

    @abstractmethod
    def backward(self, micros: Sequence[Micro], criterion: Criterion, size: int) -> Tensor:
        """Leave in ``.grad`` the gradient of the mean loss over the global batch of ``size`` images.

        Args:
            micros: this replica's micro-batches.
            criterion: sum of losses.
            size: images of the step over all replicas.

        Returns:
            int64, shape 3, on the device: this rank's sum of losses in units of 1/FIXED, its count of correct images
            and of losses that are not finite; zeros on ranks that do not hold the output.
        """

    @abstractmethod
    def logits(self, images: Inputs) -> Tensor | None:
        """Outputs (float32, shape n,K) for images on the ranks that hold the output (others: None); no gradient."""

    def train(self, mode: bool) -> None:
        """Switch between training and evaluation (dropout, batch statistics); frozen parts stay in evaluation."""
        self.network.train(mode)
        for part in self.network.modules() if mode else ():
            own = list(part.parameters())
            if own and not any(parameter.requires_grad for parameter in own):
                part.eval()

    @abstractmethod
    def warm_up(self, images: Inputs) -> None:
        """Do what a first step does besides training, such as settling DDP's buckets; nothing that training sees."""

    def gradients(self) -> list[Tensor]:
        """This rank's gradients, or its shards of them, as plain tensors that can be scaled in place."""
        return [p.grad for p in self.network.parameters() if p.grad is not None]

    def grad_norm(self) -> Tensor:
        """Euclidean norm of the whole gradient, the same on every rank; float32 scalar on the device."""
        return torch.nn.utils.get_total_norm(
            [p.grad for p in self.network.parameters() if p.grad is not None]
        )

    def average_buffers(self, share: float) -> None:
        """Weight batch-norm statistics by each replica's share of the step, so that all replicas hold the same.

        The running mean becomes that of the whole global batch; the running variance the mean of the replicas' own,
        which leaves out the spread between their means (local statistics; SyncBatchNorm would have both).
        """
        buffers = [b for b in self.network.buffers() if b.is_floating_point() and b.numel()]
        if self.world.mesh["dp"].size() == 1 or not buffers:
            return
        for buffer in buffers:
            buffer.mul_(share)
        self._reduce(buffers)

    def _reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over replicas, in one collective."""
        start = perf_counter()
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat, group=self.world.mesh["dp"].get_group())
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
        self._wait(start)

    def _wait(self, start: float) -> None:
        if self.waited_s is not None:
            self.waited_s += perf_counter() - start


class Whole(Strategy):
    """Each rank calls the whole network: serial, DDP and FSDP differ in what happens inside that call."""

    averages = True  # whether the exchange of gradients divides by the number of replicas

    def __init__(
        self, network: nn.Module, called: nn.Module, world: World, precision: Precision
    ) -> None:
        super().__init__(network, world, precision)
        self.called = called
        self._divided = world.mesh["dp"].size() if self.averages else 1

    def backward(self, micros: Sequence[Micro], criterion: Criterion, size: int) -> Tensor:
        """See ``Strategy.backward``; gradients are exchanged in the last micro-batch's backward pass."""
        sums = torch.zeros(3, dtype=torch.int64, device=self.world.device)
        for number, (images, labels) in enumerate(micros):
            with self._last(number == len(micros) - 1):
                if (
                    len(labels) == 0
                ):  # fewer images than replicas in this step: take part with weight 0
                    self.warm_up(blank(images, 2))
                    continue
                logits = self._forward(images)
                loss = criterion(logits, labels)
                self.precision.scaled(loss * (self._divided / size)).backward()
                self._after_backward()
            sums += measured(loss, criterion.correct(logits, labels))
        return sums

    def warm_up(self, images: Inputs) -> None:
        """See ``Strategy.warm_up``: a pass over ``images`` that adds 0 to each gradient and changes no statistics."""
        self.train(False)
        (self._forward(images).sum() * 0).backward()
        self._after_backward()
        self.train(True)

    def logits(self, images: Inputs) -> Tensor | None:
        """See ``Strategy.logits``."""
        with torch.no_grad():
            return self._forward(images)

    def _forward(self, images: Inputs) -> Tensor:
        with self.precision.autocast():
            return self.called(images).float()

    def _last(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a backward pass; gradients are exchanged in the last one of a step."""
        return nullcontext()

    def _after_backward(self) -> None:
        """Called when a backward pass has returned."""


class DDP(Whole):
    """Gradients are summed over replicas in buckets while the backward pass goes on (Li et al., VLDB 2020)."""

    averages = False

    def __init__(self, network: nn.Module, world: World, precision: Precision) -> None:
        called = DistributedDataParallel(
            network,
            device_ids=[world.device.index] if world.device.type == "cuda" else None,
            process_group=world.mesh["dp"].get_group(),
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
        super().__init__(network, called, world, precision)
        self._no_sync = called.no_sync
        self._cuda = world.device.type == "cuda"
        self.waited_s = None if self._cuda else 0.0
        self._ready = 0.0
        called.register_comm_hook(None, lambda _, bucket: self._summed(bucket))

    def _summed(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Sums a bucket over replicas and notes when its last gradient was ready: what follows is waiting."""
        self._ready = perf_counter()
        work = dist.all_reduce(
            bucket.buffer(), group=self.world.mesh["dp"].get_group(), async_op=True
        )
        return work.get_future().then(lambda done: done.value()[0])

    def _last(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._no_sync()

    def _after_backward(self) -> None:
        if self._ready and not self._cuda:
            self._wait(self._ready)
        self._ready = 0.0

    def logits(self, images: Inputs) -> Tensor | None:
        """Outputs without DDP, whose forward pass would prepare for a backward pass."""
        with torch.no_grad(), self.precision.autocast():
            return self.network(images).float()


def blank(like: Inputs, count: int) -> Inputs:
    """``count`` inputs of zeros in the form of others."""
    if isinstance(like, Tensor):
        return like.new_zeros((count, *like.shape[1:]))
    return tuple(part.new_zeros((count, *part.shape[1:])) for part in like)


def measured(loss: Tensor, correct: Tensor) -> Tensor:
    """Sum of losses in units of 1/FIXED, correct images, and 1 for a loss that is not finite; int64, shape 3."""
    loss = loss.detach().double()
    finite = loss.isfinite()
    fixed = torch.where(finite, loss * FIXED, 0.0).round().to(torch.int64)
    return torch.stack([fixed, correct, (~finite).long()])
