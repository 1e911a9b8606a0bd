"""A function of batches, run through one CUDA graph for each of a few batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from medscale.base.log import log
from medscale.engine.train.capture import NotCaptured, Recorder

# A batch is filled up to the next size, which is less than twice its own.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
WARM_UP = 3  # calls before the capture, in which libraries choose algorithms and allocate memory
Function = Callable[..., Tensor]
T = TypeVar("T")
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
_lock = Lock()  # PyTorch allows a process one capture at a time (torch.cuda.graph)


def capture(function: Callable[[], T]) -> Callable[[], T]:
    """Capture a function of tensors at fixed addresses as a CUDA graph; return its replay.

    Each replay writes the same output tensors, which are returned. The tensors are on the current
    GPU: a capture holds no work of another one.

    Raises:
        NotCaptured: if the function cannot be captured, such as one that waits for the GPU.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    # The default stream cannot be captured; the function's earlier work is on the caller's stream.
    caller, stream = torch.cuda.current_stream(), _stream(device)
    with _lock, torch.cuda.stream(stream):
        stream.wait_stream(caller)
        for _ in range(WARM_UP):
            function()
        replay = Recorder(device).capture(function)
        caller.wait_stream(stream)
    return replay


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of all captures on a GPU: cuBLAS keeps memory for each stream."""
    return torch.cuda.Stream(device)


class FixedBatches:
    """A function of batches whose rows do not depend on each other.

    A batch is copied into the first rows of fixed inputs of the next larger size; the other rows
    keep earlier values, and their outputs are dropped. Batches larger than the largest size are
    divided. A function that cannot be captured is called as it is, and a warning names the cause.
    Threads take turns, as they share the inputs.

    Args:
        function: from batches, shape n,… each, to outputs.
        dim: dimension of the outputs that counts the batch's rows.
        sizes: batch sizes, ascending; each is captured when it is first needed.
        record: turn a function without arguments into one that replays it.
    """

    def __init__(
        self,
        function: Function,
        dim: int = 0,
        sizes: Sequence[int] = SIZES,
        record: Capture = capture,
    ) -> None:
        self._function, self._dim, self._sizes, self._record = function, dim, tuple(sizes), record
        self._fixed: dict[int, tuple[list[Tensor], Callable[[], Tensor]]] = {}
        self._lock = Lock()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the outputs of batches with the same number of rows."""
        step = self._sizes[-1]
        with self._lock, torch.cuda.device_of(inputs[0]):
            parts = [
                self._run([tensor[start : start + step] for tensor in inputs])
                for start in range(0, len(inputs[0]), step)
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, self._dim)

    def _run(self, inputs: list[Tensor]) -> Tensor:
        rows = len(inputs[0])
        size = next(size for size in self._sizes if size >= rows)
        if size not in self._fixed:
            self._fixed[size] = self._prepare(size, inputs)
        fixed, replay = self._fixed[size]
        for buffer, tensor in zip(fixed, inputs, strict=True):
            buffer[:rows].copy_(tensor, non_blocking=True)
        # A copy, since the next replay overwrites the outputs.
        return replay().narrow(self._dim, 0, rows).clone()

    def _prepare(
        self, size: int, inputs: list[Tensor]
    ) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Return fixed inputs of a size, and the function that turns them into outputs."""
        fixed = [_buffer(size, tensor) for tensor in inputs]

        def function() -> Tensor:
            return self._function(*fixed)

        try:
            return fixed, self._record(function)
        except NotCaptured as cause:
            log.warning("batches of %d run without a CUDA graph: %s", size, cause)
            return fixed, function


def _buffer(size: int, tensor: Tensor) -> Tensor:
    """Return zeros for ``size`` rows like those of a tensor, in its memory format."""
    buffer = tensor.new_zeros((size, *tensor.shape[1:]))
    images = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return buffer.contiguous(memory_format=torch.channels_last) if images else buffer
