"""Capture of work on a GPU as a CUDA graph: the only part of training that needs a GPU.

The rules are those of https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch

T = TypeVar("T")
SYNCHRONIZES = "called a synchronizing CUDA operation"  # PyTorch's warning


class NotCaptured(Exception):
    """Raised for work that cannot be captured as a CUDA graph; the message is the cause alone."""


class Recorder:
    """Captures work on the current stream, which must not be the default stream.

    All graphs share one pool of memory, so their memory is that of the largest one. That is safe,
    since they are replayed one after the other, and no result in the pool is used after the next
    replay.
    """

    def __init__(self, device: torch.device) -> None:
        gc.collect()  # so that graphs and events of earlier work are not freed during a capture
        self._device, self._stream = device, torch.cuda.current_stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def check(self, work: Callable[[], object]) -> str | None:
        """Repeat work and return, as a cause, where the host waits for the device; None if nowhere.

        A capture would fail at that place without naming it. The work has been done once before.
        Layers that ask whether they are captured get the answer yes, since some wait for the device
        otherwise (SyncBatchNorm).
        """
        with warnings.catch_warnings(record=True) as messages, _as_if_captured():
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                return first_line(error)  # work that refuses a capture by itself
            finally:
                torch.cuda.set_sync_debug_mode("default")
        for warning in messages:
            if SYNCHRONIZES in str(warning.message):
                place = f"{warning.filename}:{warning.lineno}"
                return f"the host waits for the GPU in {place}"
        return None

    def capture(self, work: Callable[[], T]) -> Callable[[], T]:
        """Capture work that has been done before; return its replay, with the same result.

        Raises:
            NotCaptured: with the first line of the error. The objects that did the work may be left
                in an intermediate state; make new ones.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as NCCL's watchdog, may use the GPU meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                result = work()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._recover()
            raise NotCaptured(first_line(error)) from error

        def replay() -> T:
            graph.replay()
            return result

        return replay

    def _recover(self) -> None:
        """Let the device go on without what a capture that failed leaves behind.

        Its generator of random numbers gets a state that no capture has begun with. PyTorch before
        2.12 still allocates for the graph (pytorch/pytorch#180395), and would never use memory
        again that two streams have used, such as that of batches.
        """
        fresh = torch.Generator(self._device)
        torch.cuda.default_generators[self._device.index].graphsafe_set_state(
            fresh.graphsafe_get_state()
        )
        with suppress(RuntimeError):  # PyTorch has ended the allocation itself
            torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
            torch._C._cuda_releasePool(self._device.index, self._pool)


@contextmanager
def _as_if_captured() -> Iterator[None]:
    """Let ``torch.cuda.is_current_stream_capturing`` return True within the context."""
    real = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = real


def first_line(error: BaseException) -> str:
    """Return the first line of the first error in a chain; ending a broken capture fails, too."""
    while error.__context__ is not None:
        error = error.__context__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
