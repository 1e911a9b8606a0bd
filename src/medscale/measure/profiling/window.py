"""The steps of a profiled run: warm-up, steps timed without the profiler, traced steps."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from medscale.config.benchmarks import Profile
from medscale.data.loader import Loader, Step
from medscale.measure.profiling.kinds import DATA
from medscale.measure.profiling.work import Work, count_work

# Warm-up step in which FLOPs and bytes are counted: the second, since the first also creates the
# optimizer's state.
COUNTED_STEP = 1


class WindowEnd(Exception):
    """Ends the training loop when all steps are done."""


@dataclass
class Measurements:
    """The measurements of one rank."""

    # seconds of each step without the profiler; on a GPU their mean, since steps overlap
    seconds: list[float] = field(default_factory=list)
    # seconds for which each of these steps waited for its batch (``Loader.waited``)
    data_s: list[float] = field(default_factory=list)
    images: int = 0  # number of images of all these steps, over all replicas
    profiled_s: float = 0.0  # mean seconds of a step under the profiler
    work: Work = field(default_factory=Work)  # FLOPs and bytes of a step
    trace: str = ""  # the trace as JSON


class Window:
    """Source of the steps of a profiled training, in place of ``Loader.epoch``.

    Epochs follow each other without validation.

    Args:
        loader: this rank's share of the training images.
        settings: numbers of steps, and settings of the profiler.
        device: device of this rank.
        eager: function that returns a context in which steps run without a CUDA graph, so that
            their operations can be counted.
    """

    def __init__(
        self,
        loader: Loader,
        settings: Profile,
        device: torch.device,
        eager: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._loader, self._settings, self._device = loader, settings, device
        self._eager = eager
        self.measurements = Measurements()

    def steps(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """Yield the steps of the training loop; a step ends when the loop asks for the next one.

        Raises:
            WindowEnd: after the last step.
        """
        source = self._endless(epoch, start)
        for number in range(self._settings.warmup):
            with ExitStack() as stack:
                if number == COUNTED_STEP:
                    stack.enter_context(self._eager())
                    stack.enter_context(count_work(self.measurements.work))
                yield next(source)
        yield from self._timed_steps(source)
        yield from self._traced_steps(source)
        raise WindowEnd

    def _endless(self, epoch: int, start: int) -> Iterator[Step]:
        for number in count(epoch):
            yield from self._loader.epoch(number, start if number == epoch else 0)

    def _timed_steps(self, source: Iterator[Step]) -> Iterator[Step]:
        """Time the steps without the profiler."""
        result = self.measurements
        self._wait()
        marks = [time.perf_counter()]
        for _ in range(self._settings.steps):
            before = self._loader.waited()
            step = next(source)
            result.data_s.append(self._loader.waited() - before)
            result.images += step.size
            yield step
            marks.append(time.perf_counter())
        self._wait()
        if self._device.type == "cuda":
            mean = (time.perf_counter() - marks[0]) / self._settings.steps
            result.seconds = [mean] * self._settings.steps
        else:
            result.seconds = [after - before for before, after in pairwise(marks)]

    def _traced_steps(self, source: Iterator[Step]) -> Iterator[Step]:
        """Trace the same number of steps, after one in which the profiler warms up."""
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
                self._wait()  # so that the GPU's work ends within the last step
                self.measurements.profiled_s = (time.perf_counter() - since) / active
            observer.step()
        observer.stop()

    def _keep(self, observer: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="medscale-trace-") as folder:
            path = Path(folder, "trace.json")
            observer.export_chrome_trace(str(path))
            self.measurements.trace = path.read_text(encoding="utf-8")

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
