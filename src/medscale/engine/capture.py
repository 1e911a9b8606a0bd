"""CUDA graphs: the kernels of a function are recorded once and started together, by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
WARM_UP = 3  # calls before the recording, in which libraries choose algorithms and allocate


def capture(function: Callable[[], T]) -> Callable[[], T]:
    """Record the kernels of a function, and return a function that replays them.

    The function reads and writes tensors at fixed addresses: the caller writes new inputs into the
    tensors that it reads. Each replay writes the same output tensors, which are returned.

    Raises:
        RuntimeError: when the function does what cannot be recorded, such as waiting for the GPU.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()

    def replay() -> T:
        graph.replay()
        return outputs

    return replay
