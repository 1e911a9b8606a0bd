"""Fully sharded data parallel with PyTorch's FSDP2 (Zhao et al., VLDB 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from medscale.engine.parallel.model import WholeModel
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.world import World

# A unit with fewer parameters is sharded together with its parent: its own collective would take
# longer than its computation.
SMALLEST = 100_000
# Units of about equal size that a network is divided into, at most. Each has a fixed cost, so few
# large ones are faster; the memory of two of them is gathered at a time.
UNITS = 8


class FSDP(WholeModel):
    """Each rank holds a shard of every parameter; a block is whole only while it computes."""

    shares_forward = True
    averages = True

    def __init__(self, network: nn.Module, world: World, precision: Precision) -> None:
        super().__init__(network, world, precision)
        # On a GPU the collectives of FSDP2 overlap with computation, on other streams.
        self.waits.measured = world.device.type == "cpu"
        if self.waits.measured:
            gather = _TimedCollective(self, dist.all_gather_into_tensor)
            scatter = _TimedCollective(self, dist.reduce_scatter_tensor)
            for part in network.modules():
                if isinstance(part, FSDPModule):
                    part.set_custom_all_gather(gather)  # type: ignore[arg-type]
                    part.set_custom_reduce_scatter(scatter)  # type: ignore[arg-type]

    def train(self, mode: bool) -> None:
        """See ``ParallelModel.train``; also release gathered parameters: EMA may change shards."""
        for part in self.network.modules():
            if isinstance(part, FSDPModule):
                part.reshard()
        super().train(mode)

    @contextmanager
    def exchange(self, last: bool) -> Iterator[None]:
        """See ``WholeModel.exchange``."""
        assert isinstance(self.network, FSDPModule)
        self.network.set_requires_gradient_sync(last)
        self.network.set_is_last_backward(last)
        yield

    def gradients(self) -> list[Tensor]:
        """See ``ParallelModel.gradients``: the local shards."""
        return [g.to_local() if isinstance(g, DTensor) else g for g in super().gradients()]

    def grad_norm(self) -> Tensor:
        """See ``ParallelModel.grad_norm``: the norms of the shards are combined."""
        norm = super().grad_norm()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


class _TimedCollective:
    """A blocking collective on the CPU that is timed, with FSDP's interface for communication."""

    def __init__(self, model: FSDP, collective: Callable[..., Any]) -> None:
        self._model, self._collective = model, collective

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return memory for the result."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Exchange tensors, wait, and count the seconds."""
        start = self._model.waits.mark()
        kwargs["async_op"] = False
        self._collective(output_tensor, input_tensor, *args, group=group, **kwargs)
        self._model.waits.add(start)


def shard(network: nn.Module, world: World, precision: Precision) -> FSDP:
    """Shard a network over all ranks, unit by unit.

    Under mixed precision, parameters are gathered in the low format and gradients are reduced in
    fp32. Normalization layers stay in fp32, as their running statistics are; they form one unit, as
    they are small. The last unit keeps its parameters between forward and backward, which would
    gather them again at once, and so do all units where a single rank holds everything.
    """
    # FSDP2 shards contiguous parameters only.
    network = network.to(memory_format=torch.contiguous_format)
    mesh = world.mesh["dp"]
    norms: list[nn.Module] = [
        part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    if precision.dtype is not None and norms:
        full = MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(norms, mesh=mesh, mp_policy=full)
    policy = MixedPrecisionPolicy(
        param_dtype=precision.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    units = list(_units(network))
    for unit in units:
        reshards = mesh.size() > 1 and unit is not units[-1]
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=reshards)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    return FSDP(network, world, precision)


def _units(network: nn.Module) -> Iterator[list[nn.Module]]:
    """Yield consecutive blocks of a network that are sharded together, at most UNITS times."""
    least = max(SMALLEST, _size(network) // UNITS)
    unit: list[nn.Module] = []
    for block in _blocks(network):
        unit.append(block)
        if sum(map(_size, unit)) >= least:
            yield unit
            unit = []
    if unit:
        yield unit


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Yield, in order, the smallest submodules with at least SMALLEST parameters."""
    for child in network.children():
        if not _is_large(child):
            continue
        container = type(child).forward in (nn.Sequential.forward, nn.Module.forward)
        if container and any(map(_is_large, child.children())):
            yield from _blocks(child)
        else:
            yield child


def _is_large(module: nn.Module) -> bool:
    return _size(module) >= SMALLEST


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
