"""The steps of a profiled run: warm-up, some timed as they are, as many under torch.profiler; then it ends."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from medscale.config.sections import Profile
from medscale.data.loader import Loader, Step
from medscale.measure.profiling.kinds import DATA
from medscale.measure.profiling.work import Work, counted

COUNTED = 1  # the step in which FLOPs and bytes are counted: the optimizer's state is there, nothing is timed yet


class Enough(Exception):
    """All steps that were asked for are done; it ends the training loop."""


@dataclass
class Seen:
    """What one rank saw.

    Attributes:
        seconds: of each step timed without the profiler; on a GPU their mean, since steps overlap there.
        data_s: waiting for the batch of each of these steps, on the host.
        images: over all replicas, of these steps together.
        profiled_s: seconds a step under the profiler.
        work: FLOPs and bytes of a step.
        trace: the trace as JSON.
    """

    seconds: list[float] = field(default_factory=list)
    data_s: list[float] = field(default_factory=list)
    images: int = 0
    profiled_s: float = 0.0
    work: Work = field(default_factory=Work)
    trace: str = ""


class Window:
    """Where a profiled training takes its steps from, instead of ``Loader.epoch``: epochs follow without validation.

    Args:
        loader: this rank's share of the training images.
        settings: how many steps, and what the profiler notes.
        device: where it is trained.
    """

    def __init__(self, loader: Loader, settings: Profile, device: torch.device) -> None:
        self._loader, self._settings, self._device = loader, settings, device
        self.seen = Seen()

    def steps(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """Steps for the loop; each is over when the next one is asked for.

        Raises:
            Enough: instead of a step after the last.
        """
        source = self._endless(epoch, start)
        for number in range(self._settings.warmup):
            with ExitStack() as stack:
                if number == COUNTED:
                    stack.enter_context(counted(self.seen.work))
                yield next(source)
        yield from self._timed(source)
        yield from self._traced(source)
        raise Enough

    def _endless(self, epoch: int, start: int) -> Iterator[Step]:
        for number in count(epoch):
            yield from self._loader.epoch(number, start if number == epoch else 0)

    def _timed(self, source: Iterator[Step]) -> Iterator[Step]:
        """Steps as any training has them."""
        seen = self.seen
        self._wait()
        marks = [time.perf_counter()]
        for _ in range(self._settings.steps):
            step = next(source)
            seen.data_s.append(time.perf_counter() - marks[-1])
            seen.images += step.size
            yield step
            marks.append(time.perf_counter())
        self._wait()
        if self._device.type == "cuda":
            seen.seconds = [
                (time.perf_counter() - marks[0]) / self._settings.steps
            ] * self._settings.steps
        else:
            seen.seconds = [after - before for before, after in pairwise(marks)]

    def _traced(self, source: Iterator[Step]) -> Iterator[Step]:
        """The same under the profiler, after one step in which it warms up."""
        cuda = self._device.type == "cuda"
        active = self._settings.steps
        observer = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])],
            schedule=schedule(wait=0, warmup=1, active=active, repeat=1),
            on_trace_ready=self._keep,
            record_shapes=self._settings.shapes,
            profile_memory=self._settings.memory,
            acc_events=True,
        )
        observer.start()
        since = 0.0
        for number in range(1 + active):
            if number == 1:
                self._wait()
                since = time.perf_counter()
            with record_function(DATA):
                step = next(source)
            yield step
            if number == active:
                self._wait()  # so that the GPU's work is within the last step
                self.seen.profiled_s = (time.perf_counter() - since) / active
            observer.step()
        observer.stop()

    def _keep(self, observer: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="medscale-trace-") as folder:
            path = Path(folder, "trace.json")
            observer.export_chrome_trace(str(path))
            self.seen.trace = path.read_text(encoding="utf-8")

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
