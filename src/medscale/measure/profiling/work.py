"""How much a training step computes and moves: FLOPs, bytes of operands and results, bytes handed to collectives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from medscale.measure.profiling.kinds import of_operator

# They give a tensor without reading or writing one.
FREE = frozenset(
    {
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "_unsafe_view",
        "alias",
    }
)


@dataclass
class Work:
    """What one rank does in one step.

    Attributes:
        flops: by kind; of matrix multiplications and convolutions alone, a multiply-add counts as two.
        bytes: by kind; each operator reads each operand and writes each result once.
        communicated: bytes handed to collectives.
    """

    flops: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, float] = field(default_factory=dict)
    communicated: float = 0.0


class Traffic(TorchDispatchMode):
    """Counts the bytes of operands and results of each operator below autograd; views and allocations are free.

    This is the compulsory traffic of each operator by itself: what a cache keeps from one operator to the next makes
    the true traffic less, what an operator reads twice makes it more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, float] = defaultdict(float)
        self.communicated = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and count it; of a DTensor, which unwraps itself first, this rank's share."""
        if any(kind not in (Tensor, Parameter) for kind in types):
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        operands = _size((args, kwargs))
        if of_operator(func.name()) == "communication":
            self.communicated += operands
        elif not _is_free(func):
            self.bytes[of_operator(func.name())] += operands + _size(out)
        return out


@contextmanager
def counted(work: Work) -> Iterator[None]:
    """Count into ``work`` what this thread and its backward passes do; compiled code is run uncompiled meanwhile."""
    flops, traffic = FlopCounterMode(display=False), Traffic()
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(traffic)
        stack.enter_context(flops)
        yield
    by_kind: dict[str, float] = defaultdict(float)
    for operator, count in flops.get_flop_counts().get("Global", {}).items():
        by_kind[of_operator(str(operator).replace(".", "::"))] += count
    work.flops, work.bytes, work.communicated = (
        dict(by_kind),
        dict(traffic.bytes),
        traffic.communicated,
    )


def _is_free(func: Any) -> bool:
    name = func.overloadpacket.__name__
    views = any(
        r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns
    )
    return views or name in FREE


def _size(tree: Any) -> float:
    """Bytes of all tensors in a tree; what is only repeated (expanded) counts once."""
    return sum(_bytes(leaf) for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> float:
    held = tensor.untyped_storage().nbytes() if tensor.layout is torch.strided else float("inf")
    return min(tensor.numel() * tensor.element_size(), held)
