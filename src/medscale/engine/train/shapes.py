"""Functions of batches of few shapes, each in fixed buffers, as CUDA graphs need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from torch import Tensor

from medscale.data.loader import Batch, Shape, Step
from medscale.engine.train.capture import Recorder

T = TypeVar("T")
Work = Callable[[Sequence[Batch], int], T]


class Slot(Generic[T]):
    """The buffers of one shape, and the work on them.

    Attributes:
        call: do the work on the buffers, by calling it or by replaying its graph.
        eager: do the work by calling it.
    """

    def __init__(self, work: Work[T], batches: list[Batch], size: int, *, labelled: bool) -> None:
        self._batches, self._labelled = batches, labelled
        self.eager: Callable[[], T] = lambda: work(batches, size)
        self.call = self.eager

    def fill(self, step: Step) -> None:
        """Copy a step into the buffers; the host does not wait."""
        for buffer, batch in zip(self._batches, step.batches, strict=True):
            for target, source in zip(self._read(buffer), self._read(batch), strict=True):
                target.copy_(source, non_blocking=True)

    def _read(self, batch: Batch) -> list[Tensor]:
        """Return the tensors of a batch that the work reads."""
        return [*batch.arguments, batch.labels] if self._labelled else batch.arguments


class FixedShapes(Generic[T]):
    """A function of a step that is called with few shapes, each in buffers that do not move.

    A CUDA graph reads and writes the memory that it was captured with, so each shape has buffers,
    which a step is copied into. On a CPU the function is called on such buffers, too.

    Args:
        work: the function of micro-batches and the images of the step over all replicas.
        blank: return a batch of a number of images, to be a buffer.
        labelled: whether the function reads the labels.
    """

    def __init__(
        self, work: Work[T], blank: Callable[[int], Batch], *, labelled: bool = True
    ) -> None:
        self._work, self._blank, self._labelled = work, blank, labelled
        self._slots: dict[Shape, Slot[T]] = {}
        self._eager = False

    def __call__(self, step: Step) -> T:
        """Return the result for a step; the next call may overwrite it."""
        slot = self._slot(step.shape)
        slot.fill(step)
        return slot.eager() if self._eager else slot.call()

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Call the function within the context, even if it has a graph."""
        self._eager = True
        try:
            yield
        finally:
            self._eager = False

    def warm_up(self, shape: Shape, times: int) -> None:
        """Call the function on zeros, which loads, compiles and measures kernels."""
        for _ in range(times):
            self._slot(shape).eager()

    def check(self, shape: Shape, recorder: Recorder) -> str | None:
        """Call the function on zeros; return where the host waits for the device, if it does."""
        return recorder.check(self._slot(shape).eager)

    def capture(self, shape: Shape, recorder: Recorder) -> None:
        """Replay a graph for this shape from now on; NotCaptured if it cannot be captured."""
        slot = self._slot(shape)
        if slot.call is slot.eager:
            slot.call = recorder.capture(slot.eager)

    def discard(self) -> None:
        """Free all buffers and graphs."""
        self._slots.clear()

    def _slot(self, shape: Shape) -> Slot[T]:
        if shape not in self._slots:
            batches = [self._blank(images) for images in shape.micros]
            self._slots[shape] = Slot(self._work, batches, shape.size, labelled=self._labelled)
        return self._slots[shape]
