"""Distributed data parallel training (Li et al., VLDB 2020)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medscale.engine.parallel.model import Inputs, WholeModel
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.waits import Mark
from medscale.engine.parallel.world import World

# DDP's argument for copying rank 0's buffers before each pass, which ``average_buffers`` replaces.
# PyTorch 2.13 renamed it.
COPIES_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
)


class DDP(WholeModel):
    """Sum gradients over replicas in buckets, each as soon as its gradients are ready."""

    def __init__(self, network: nn.Module, world: World, precision: Precision) -> None:
        cuda = world.device.type == "cuda"
        wrapped = DistributedDataParallel(
            network,
            device_ids=[world.device.index] if cuda else None,
            process_group=world.replica_group,
            gradient_as_bucket_view=True,
            **{COPIES_BUFFERS: False},  # type: ignore[arg-type]
        )
        super().__init__(network, world, precision, wrapped)
        self._no_sync = wrapped.no_sync
        self._bucket_ready: Mark | None = None
        # A lambda, since DDP does not accept a hook whose annotations are strings.
        wrapped.register_comm_hook(None, lambda _, bucket: self._sum_bucket(bucket))

    def _sum_bucket(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Sum a bucket over replicas; from the last one to the end of the pass a rank waits."""
        self._bucket_ready = self.waits.mark()
        work = dist.all_reduce(bucket.buffer(), group=self.world.replica_group, async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    def exchange(self, last: bool) -> AbstractContextManager[Any]:
        """See ``WholeModel.exchange``."""
        return nullcontext() if last else self._no_sync()

    def _after_backward(self) -> None:
        if self._bucket_ready is not None:
            self.waits.add(self._bucket_ready)
        self._bucket_ready = None

    def logits(self, inputs: Inputs) -> Tensor | None:
        """Call the network without DDP, whose forward pass would prepare a backward pass."""
        with torch.no_grad(), self.uncompiled(), self.precision.autocast():
            return self.network(inputs).float()
