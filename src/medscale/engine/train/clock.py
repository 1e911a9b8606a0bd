"""Where the time, memory and energy of a replicate go."""

from __future__ import annotations

import resource
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

import torch

T = TypeVar("T")
KINDS = ("data", "compute", "communication", "checkpoint", "validation")


class Clock:
    """Seconds by kind; what is not told apart is computing.

    On GPUs, host time waiting for data is told apart, and the device is awaited at the end of an epoch.
    """

    def __init__(self, device: torch.device, spent: dict[str, float]) -> None:
        self._device = device
        self.spent: dict[str, float] = defaultdict(float, spent)
        self._since = perf_counter()

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Iterate, counting the time that the next item takes as data."""
        iterator = iter(items)
        while True:
            start = perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._add("data", perf_counter() - start)
            yield item

    @contextmanager
    def kind(self, name: str) -> Iterator[None]:
        """Count the time within as ``name``."""
        start = perf_counter()
        try:
            yield
        finally:
            self._add(name, perf_counter() - start)

    def moved(self, seconds: float | None) -> None:
        """Tell seconds of computing apart as communication."""
        self._add("communication", seconds or 0.0)

    def settle(self) -> dict[str, float]:
        """Seconds by kind up to now; computing is what no other kind took."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = perf_counter()
        self.spent["compute"] += now - self._since
        self._since = now
        return {kind: max(0.0, self.spent[kind]) for kind in KINDS}

    def reset(self) -> None:
        """Begin an epoch."""
        self.spent.clear()
        self._since = perf_counter()

    def _add(self, kind: str, seconds: float) -> None:
        self.spent[kind] += seconds
        self.spent["compute"] -= seconds


def host_memory_mb() -> float:
    """Largest resident memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_memory_mb(device: torch.device) -> float | None:
    """Largest memory allocated on the GPU by this process, MB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


class Meter:
    """Energy and use of a GPU since this was made, as NVML tells them; None where it does not, and on a CPU.

    Args:
        device: the GPU.
        every_s: seconds between two looks at the use, which a thread takes.
    """

    def __init__(self, device: torch.device, every_s: float = 1.0) -> None:
        self._handle = _handle(device)
        self._used: list[float] = []
        self._start = self._ask("TotalEnergyConsumption")
        self._done = threading.Event()
        if self._handle is not None:
            threading.Thread(target=self._look, args=(every_s,), daemon=True).start()

    def joules(self) -> float | None:
        """Joules since the start."""
        now = self._ask("TotalEnergyConsumption")
        return None if now is None or self._start is None else (now - self._start) / 1000

    def use_percent(self) -> float | None:
        """Mean share of time in which the GPU had work, percent; ends the looking."""
        self._done.set()
        return sum(self._used) / len(self._used) if self._used else None

    def _look(self, every_s: float) -> None:
        while not self._done.wait(every_s):
            use = self._ask("UtilizationRates")
            if use is not None:
                self._used.append(float(use.gpu))

    def _ask(self, what: str) -> Any:
        """What NVML answers for this GPU; None when this kind of GPU does not tell."""
        if self._handle is None:
            return None
        import pynvml

        try:
            return getattr(pynvml, f"nvmlDeviceGet{what}")(self._handle)
        except pynvml.NVMLError:
            return None


def _handle(device: torch.device) -> Any:
    """NVML's handle of a GPU, found by its UUID, since CUDA may number the GPUs otherwise."""
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
