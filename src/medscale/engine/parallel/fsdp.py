"""Fully sharded data parallel with PyTorch's FSDP2 (Zhao et al., VLDB 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from medscale.base.log import log
from medscale.engine.parallel.model import Inputs, WholeModel
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.world import World

# A unit with fewer parameters is sharded together with its parent: its own collective would take
# longer than its computation.
SMALLEST = 100_000
# Units of about equal size that a network is divided into, at most. Each has a fixed cost, so few
# large ones are faster; the memory of two of them is gathered at a time.
UNITS = 8
# The methods of FSDP2's groups of parameters that exchange tensors, or let the stream of
# computation wait for an exchange. No two of them are nested.
EXCHANGES = ("unshard", "wait_for_unshard", "post_backward", "finalize_backward")


class FSDP(WholeModel):
    """Each rank holds a shard of every parameter; a block is whole only while it computes."""

    shares_forward = True
    averages = True

    def __init__(self, network: nn.Module, world: World, precision: Precision) -> None:
        super().__init__(network, world, precision)
        if world.replicas > 1:  # one rank alone has no communication
            self._measure_waits(_groups(network))

    def train(self, mode: bool) -> None:
        """See ``ParallelModel.train``; also release gathered parameters: EMA may change shards."""
        self._reshard()
        super().train(mode)

    def _reshard(self) -> None:
        """Release all gathered parameters."""
        for part in self.network.modules():
            if isinstance(part, FSDPModule):
                part.reshard()

    @contextmanager
    def exchange(self, last: bool) -> Iterator[None]:
        """See ``WholeModel.exchange``."""
        assert isinstance(self.network, FSDPModule)
        self.network.set_requires_gradient_sync(last)
        self.network.set_is_last_backward(last)
        yield

    def logits(self, inputs: Inputs) -> Tensor | None:
        """See ``ParallelModel.logits``: each call gathers all weights, as its graph has to."""
        self._reshard()
        outputs = super().logits(inputs)
        self._reshard()
        return outputs

    def gradients(self) -> list[Tensor]:
        """See ``ParallelModel.gradients``: the local shards."""
        return [g.to_local() if isinstance(g, DTensor) else g for g in super().gradients()]

    def grad_norm(self) -> Tensor:
        """See ``ParallelModel.grad_norm``: the norms of the shards are combined."""
        norm = super().grad_norm()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _measure_waits(self, groups: list[Any]) -> None:
        """Time the exchanges of groups of parameters, by the clock or by events on the stream.

        On a GPU collectives run on other streams. The stream of computation has only the waits for
        them, and copies into and out of their buffers, so that hidden exchange is not counted.
        """
        if not groups or not all(hasattr(group, name) for group in groups for name in EXCHANGES):
            self.waits.measured = False
            log.info(
                "FSDP2 of PyTorch %s lacks one of %s: waiting for other ranks counts as computing",
                torch.__version__,
                ", ".join(EXCHANGES),
            )
            return
        for group in groups:
            for name in EXCHANGES:
                setattr(group, name, self._timed(getattr(group, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.waits.mark()
            result = method(*args, **kwargs)
            self.waits.add(start)
            return result

        return timed


def _groups(network: nn.Module) -> list[Any]:
    """Return FSDP2's groups of parameters, by names that are not part of PyTorch's interface.

    Each group is returned once; all modules of a unit have the same group.
    """
    all_groups: list[Any] = []
    for part in network.modules():
        if isinstance(part, FSDPModule):
            state = part._get_fsdp_state()
            groups = getattr(state, "_fsdp_param_groups", None)
            if groups is None:  # PyTorch before 2.12
                groups = [getattr(state, "_fsdp_param_group", None)]
            all_groups += groups
    return [group for group in dict.fromkeys(all_groups) if group is not None]


def shard(network: nn.Module, world: World, precision: Precision) -> FSDP:
    """Shard a network over all ranks, unit by unit.

    A module that several blocks share is a unit of its own, which FSDP2 demands.

    Under mixed precision, parameters are gathered in the low format and gradients are reduced in
    fp32. Normalization layers stay in fp32, as their running statistics are; they form one unit, as
    they are small. That unit and the last one keep their parameters between forward and backward,
    which would gather them again at once, and so do all units where a single rank holds everything.
    """
    # FSDP2 shards contiguous parameters only.
    network = network.to(memory_format=torch.contiguous_format)
    mesh = world.mesh["dp"]
    norms: list[nn.Module] = [
        part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    if precision.dtype is not None and norms:
        full = MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(norms, mesh=mesh, mp_policy=full, reshard_after_forward=False)
    policy = MixedPrecisionPolicy(
        param_dtype=precision.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for part in _shared(network):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    units = list(_units(network))
    for unit in units:
        reshards = mesh.size() > 1 and unit is not units[-1]
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=reshards)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    return FSDP(network, world, precision)


def _shared(network: nn.Module) -> list[nn.Module]:
    """Return the modules that several blocks share; in FSDP2 a module belongs to one unit only."""
    counts = Counter(part for block in _blocks(network) for part in block.modules())
    repeated = [part for part, count in counts.items() if count > 1]
    shared = [part for part in repeated if _is_unsharded(part) and not _is_container(part)]
    inner = {part for whole in shared for part in whole.modules() if part is not whole}
    return [part for part in shared if part not in inner]


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
    """Yield, in order, the smallest submodules with at least SMALLEST parameters.

    Of a container of smaller modules, all modules are yielded. FSDP2 gathers the parameters of a
    module when it is called. A list is never called, and a network can call the modules of an
    ``nn.Sequential`` one by one.
    """
    for child in network.children():
        if not _is_large(child) or not _is_unsharded(child):
            continue
        if not _is_container(child):
            yield child
        elif any(map(_is_large, child.children())):
            yield from _blocks(child)
        else:
            yield from _parts(child)


def _parts(container: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of a container, and of containers in it, that are in no unit yet."""
    for child in container.children():
        if _is_container(child):
            yield from _parts(child)
        elif _is_unsharded(child):
            yield child


def _is_unsharded(module: nn.Module) -> bool:
    """Return whether a module has parameters and is not in another unit yet."""
    return _size(module) > 0 and not isinstance(module, FSDPModule)


def _is_container(module: nn.Module) -> bool:
    """Return whether a module is a list or a sequence, without a computation of its own."""
    return type(module).forward in (nn.Module.forward, nn.Sequential.forward)


def _is_large(module: nn.Module) -> bool:
    return _size(module) >= SMALLEST


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
