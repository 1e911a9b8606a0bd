"""Work of the host and copies to a GPU that run while the GPU trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
# Seconds between two looks at whether a GPU still works. The host must not synchronize with it: it
# would launch the next step only after the GPU has become idle.
LOOK_EVERY = 0.0002


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device; the host does not wait for the copy to a GPU."""
    if device.type == "cuda":
        values = values.pin_memory()  # from other memory, the host would wait for the copy
    return values.to(device, non_blocking=True)


def ahead(
    items: Iterator[T],
    stream: torch.cuda.Stream | None,
    tensors: Callable[[T], list[Tensor]],
    waited: Callable[[float], None] = lambda seconds: None,
) -> Iterator[T]:
    """Yield items; for a GPU, a thread prepares the next item on a stream at the same time.

    On a CPU, where the host is the device, no item is prepared ahead.

    Args:
        items: iterator that prepares the items.
        stream: the stream for the preparation; None on a CPU.
        tensors: function that returns the tensors of an item in the memory of the GPU.
        waited: called with the seconds for which the GPU, without other work, waited for an item.
    """
    if stream is None:
        yield from items
        return

    def make() -> tuple[list[T], torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return list(islice(items, 1)), stream.record_event()

    # The current GPU of a new thread is the first one, and ``torch.cuda.stream`` would make it
    # current again after each item. Every process of a run would then take memory of the first GPU.
    with ThreadPoolExecutor(1, "ahead", torch.cuda.set_device, (stream.device,)) as thread:
        future = thread.submit(make)
        while True:
            waited(_wait(future, torch.cuda.current_stream()))
            batch, ready = future.result()
            if not batch:
                return
            future = thread.submit(make)
            current = torch.cuda.current_stream()
            current.wait_event(ready)
            for tensor in tensors(batch[0]):
                tensor.record_stream(current)  # keeps its memory until this stream has used it
            yield batch[0]


def _wait(future: Future[Any], stream: torch.cuda.Stream) -> float:
    """Wait for a future; return for how many seconds the stream was idle meanwhile."""
    start = perf_counter()
    if not future.done():
        work = stream.record_event()
        while not future.done() and not work.query():
            wait([future], LOOK_EVERY)
            start = perf_counter()
        wait([future])
    return perf_counter() - start
