"""Time of a training by kind of work, peak memory, and energy of the GPU."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

import torch

T = TypeVar("T")
KINDS = ("data", "compute", "communication", "checkpoint", "validation")


class Clock:
    """Seconds by kind of work; time that is not counted as another kind is computing.

    A GPU is synchronized by ``settle``.

    Args:
        device: where this rank computes.
        spent: seconds by kind of the epoch so far, from a checkpoint.
    """

    def __init__(self, device: torch.device, spent: dict[str, float]) -> None:
        self._device = device
        self.spent: dict[str, float] = defaultdict(float, spent)
        self._since = perf_counter()

    def waiting(
        self, items: Iterable[T], waited: Callable[[], float] = perf_counter
    ) -> Iterator[T]:
        """Iterate, and count the time until each next item, by the clock ``waited``, as data."""
        iterator = iter(items)
        while True:
            start = waited()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._add("data", waited() - start)
            yield item

    @contextmanager
    def kind(self, name: str) -> Iterator[None]:
        """Count the time of the context as ``name``."""
        start = perf_counter()
        try:
            yield
        finally:
            self._add(name, perf_counter() - start)

    def moved(self, seconds: float) -> None:
        """Move seconds from computing to communication."""
        self._add("communication", seconds)

    def settle(self) -> dict[str, float]:
        """Return the seconds of the epoch so far by kind of work; they add up to its duration."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = perf_counter()
        self.spent["compute"] += now - self._since
        self._since = now
        seconds = {kind: self.spent[kind] for kind in KINDS}
        # A GPU's events and the host's clock differ a little.
        excess = max(0.0, -seconds["compute"])
        seconds["compute"] += excess
        seconds["communication"] -= excess
        return seconds

    def reset(self) -> None:
        """Start an epoch."""
        self.spent.clear()
        self._since = perf_counter()

    def _add(self, kind: str, seconds: float) -> None:
        self.spent[kind] += seconds
        self.spent["compute"] -= seconds


def device_memory_mb(device: torch.device) -> float | None:
    """Return the largest memory that this process allocated on the GPU, MiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


class Meter:
    """Energy and utilization of a GPU since the meter was created, as NVML reports them.

    Values are None on a CPU and for GPUs that do not report them.

    Args:
        device: the GPU.
        every_s: seconds between two samples of the utilization, which a thread takes.
    """

    def __init__(self, device: torch.device, every_s: float = 1.0) -> None:
        self._handle = _nvml_handle(device)
        self._samples: list[float] = []
        self._start = self._query("TotalEnergyConsumption")
        self._stop = threading.Event()
        if self._handle is not None:
            threading.Thread(target=self._sample, args=(every_s,), daemon=True).start()

    def joules(self) -> float | None:
        """Return the energy since the start, J."""
        now = self._query("TotalEnergyConsumption")
        return None if now is None or self._start is None else (now - self._start) / 1000

    def use_percent(self) -> float | None:
        """Return the mean share of time in which the GPU had work, percent; end the sampling."""
        self._stop.set()
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _sample(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            rates = self._query("UtilizationRates")
            if rates is not None:
                self._samples.append(float(rates.gpu))

    def _query(self, quantity: str) -> Any:
        """Return NVML's value for this GPU; None if it does not report it."""
        if self._handle is None:
            return None
        import pynvml

        try:
            return getattr(pynvml, f"nvmlDeviceGet{quantity}")(self._handle)
        except pynvml.NVMLError:
            return None


def _nvml_handle(device: torch.device) -> Any:
    """Return NVML's handle of a GPU, by UUID: CUDA may number the GPUs in another order."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(
            f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        )
    except pynvml.NVMLError:
        return None
