"""Work of a training step: FLOPs, bytes of operands and results, bytes of collectives."""

import math
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

# Operators that return a tensor without reading or writing one.
FREE = {"_unsafe_view", "alias", "empty", "empty_like", "empty_strided"}
FREE |= {"new_empty", "new_empty_strided"}


@dataclass
class Work:
    """The work of one rank in one step."""

    # FLOPs by kind of operator, of matrix products and convolutions alone; a multiply-add is two
    flops: dict[str, float] = field(default_factory=dict)
    # bytes by kind of operator; each operator reads each operand and writes each result once
    bytes: dict[str, float] = field(default_factory=dict)
    communicated: float = 0.0  # bytes passed to collectives


class Traffic(TorchDispatchMode):
    """Counts the bytes of operands and results of each operator below autograd.

    Views and allocations are free. The result is the compulsory traffic of each operator by itself.
    The true traffic is lower if a cache keeps data between operators, and higher if an operator
    reads data twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, float] = defaultdict(float)
        self.communicated = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and count an operator; of a DTensor, the local part counts."""
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
def count_work(work: Work) -> Iterator[None]:
    """Count the work of this thread and its backward passes into ``work``.

    Compiled functions run uncompiled meanwhile, since their operators cannot be counted.
    """
    backward = {torch.ops.aten.convolution_backward: _convolution_backward}
    flops, traffic = FlopCounterMode(display=False, custom_mapping=backward), Traffic()
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(traffic)
        stack.enter_context(flops)
        yield
    by_kind: dict[str, float] = defaultdict(float)
    for operator, count in flops.get_flop_counts().get("Global", {}).items():
        by_kind[of_operator(str(operator).replace(".", "::"))] += count
    work.flops, work.bytes = dict(by_kind), dict(traffic.bytes)
    work.communicated = traffic.communicated


def _convolution_backward(
    grad: torch.Size, images: torch.Size, weight: torch.Size, *rest: Any, **_: Any
) -> int:
    """Return the FLOPs of the backward pass of a convolution with arguments of these shapes.

    PyTorch's count ignores ``groups`` in the gradient of the weight: that of a depthwise layer of
    n channels would be n times too large. Each gradient takes as many FLOPs as the forward pass.
    """
    transposed, output_mask = rest[4], rest[7]
    positions = math.prod((images if transposed else grad)[2:])
    return 2 * grad[0] * positions * math.prod(weight) * sum(output_mask[:2])


def _is_free(func: Any) -> bool:
    name = func.overloadpacket.__name__
    views = any(
        r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns
    )
    return views or name in FREE


def _size(tree: Any) -> float:
    """Return the bytes of all tensors in a tree; an expanded tensor counts without repetition."""
    return sum(_bytes(leaf) for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> float:
    stored = tensor.untyped_storage().nbytes() if tensor.layout is torch.strided else float("inf")
    return min(tensor.numel() * tensor.element_size(), stored)
