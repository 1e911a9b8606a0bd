"""FSDP: parameters, gradients and optimizer state are sharded over ranks (Zhao et al., VLDB 2023; PyTorch's FSDP2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies import Whole
from medscale.engine.parallel.world import World

SMALLEST = 100_000  # parameters below which a block is not sharded by itself but with its parent


class FSDP(Whole):
    """Each rank holds a shard of every parameter; whole blocks exist only while they compute."""

    shares_forward = True

    def __init__(self, network: nn.Module, world: World, precision: Precision) -> None:
        super().__init__(network, network, world, precision)
        self.waited_s = 0.0 if world.device.type == "cpu" else None
        if self.waited_s is not None:
            for part in network.modules():
                if isinstance(part, FSDPModule):
                    part.set_custom_all_gather(_Timed(self, dist.all_gather_into_tensor))  # type: ignore[arg-type]
                    part.set_custom_reduce_scatter(_Timed(self, dist.reduce_scatter_tensor))  # type: ignore[arg-type]

    def train(self, mode: bool) -> None:
        """See ``Strategy.train``; gathered parameters are let go, since the shards may have changed meanwhile (EMA)."""
        assert isinstance(self.network, FSDPModule)
        self.network.reshard()
        super().train(mode)

    @contextmanager
    def _last(self, last: bool) -> Iterator[None]:
        assert isinstance(self.network, FSDPModule)
        self.network.set_requires_gradient_sync(last)
        self.network.set_is_last_backward(last)
        yield

    def gradients(self) -> list[Tensor]:
        """See ``Strategy.gradients``: the local shards."""
        return [g.to_local() if isinstance(g, DTensor) else g for g in super().gradients()]

    def grad_norm(self) -> Tensor:
        """See ``Strategy.grad_norm``: the shards' norms are combined."""
        norm = super().grad_norm()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


class _Timed:
    """A collective on the CPU, carried out at once and timed; PyTorch's interface for FSDP's own communication."""

    def __init__(self, strategy: FSDP, collective: Callable[..., Any]) -> None:
        self._strategy, self._collective = strategy, collective

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for what is received."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Exchange, wait, and count the seconds."""
        start = perf_counter()
        kwargs["async_op"] = False
        self._collective(output_tensor, input_tensor, *args, group=group, **kwargs)
        self._strategy._wait(start)


def fsdp(network: nn.Module, world: World, precision: Precision) -> FSDP:
    """Shard ``network`` over all ranks, block by block.

    Under mixed precision parameters are gathered in the low format and gradients are reduced in fp32; normalization
    layers stay in fp32, since their running statistics are.
    """
    network = network.to(
        memory_format=torch.contiguous_format
    )  # FSDP2 shards contiguous parameters only
    mesh = world.mesh["dp"]
    if precision.dtype is not None:
        for part in network.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                fully_shard(
                    part, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False)
                )
    policy = MixedPrecisionPolicy(
        param_dtype=precision.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in _blocks(network):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    return FSDP(network, world, precision)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Smallest submodules, in order, that hold enough parameters to be worth a collective of their own."""
    for child in network.children():
        size = sum(p.numel() for p in child.parameters())
        if size < SMALLEST:
            continue
        container = type(child).forward in (nn.Sequential.forward, nn.Module.forward)
        if container and any(
            sum(p.numel() for p in c.parameters()) >= SMALLEST for c in child.children()
        ):
            yield from _blocks(child)
        else:
            yield child
