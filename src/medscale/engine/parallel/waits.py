"""Seconds in which a rank waits for other ranks, by the host's clock or by CUDA events."""

from __future__ import annotations

from time import perf_counter

import torch

Mark = float | torch.cuda.Event
Spans = list[tuple[torch.cuda.Event, torch.cuda.Event]]


class Waits:
    """The time between pairs of marks in the steps of a training.

    On a CPU the clock is read. A GPU works later than the host, so events are recorded on its
    stream, within a step. A captured graph records the same events in each replay, so that they
    hold the times of the last step alone; ``take`` multiplies them by the number of steps.

    Attributes:
        measured: whether waiting can be separated from computing.
        spans: pairs of events of the last step on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.measured, self._cuda, self._seconds = True, device.type == "cuda", 0.0
        self._in_step = False
        self.spans: Spans = []

    def mark(self) -> Mark:
        """Return the time now, or an event on the current stream."""
        if not (self._cuda and self.measured and self._in_step):
            return perf_counter()
        # An external event is recorded by each replay of a graph that it is captured in.
        event = torch.cuda.Event(enable_timing=True, external=True)
        event.record()
        return event

    def add(self, start: Mark) -> None:
        """Count the time from a mark until now as waiting."""
        if not self.measured:
            return
        end = self.mark()
        if isinstance(start, float) and isinstance(end, float):
            self._seconds += 0.0 if self._cuda else end - start
        elif isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
            self.spans.append((start, end))

    def begin_step(self) -> None:
        """Forget the events of the step before; evaluation between steps records none."""
        self.spans, self._in_step = [], True

    def end_step(self) -> Spans:
        """Return the events of the step."""
        self._in_step = False
        return self.spans

    def take(self, steps: int) -> float:
        """Return the seconds since the last call, in which there were ``steps`` steps.

        Call it when the device has finished its work.
        """
        seconds, self._seconds = self._seconds, 0.0
        last = sum(start.elapsed_time(end) for start, end in self.spans) / 1000 if steps else 0.0
        return seconds + last * steps
