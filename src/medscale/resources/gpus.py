"""Findings of `medscale check` on this machine's GPUs, from NVML and PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A GPU, or a part of one (MIG)."""

    name: str
    memory_mb: float


def describe(uuids: Sequence[str]) -> list[Card]:
    """Return name and memory of GPUs by their UUIDs, without those that NVML does not know."""
    import pynvml

    result = []
    pynvml.nvmlInit()
    try:
        for uuid in uuids:
            with suppress(pynvml.NVMLError):  # CUDA accepts shortened UUIDs as well
                handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**20
                result.append(Card(str(pynvml.nvmlDeviceGetName(handle)), memory))
    finally:
        pynvml.nvmlShutdown()
    return result


def driver() -> tuple[str, str]:
    """Return the version of the driver, and the newest CUDA that it supports."""
    import pynvml

    pynvml.nvmlInit()
    try:
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        version = str(pynvml.nvmlSystemGetDriverVersion())
        return version, f"{cuda // 1000}.{cuda % 1000 // 10}"
    finally:
        pynvml.nvmlShutdown()


def unusable() -> str | None:
    """Return why PyTorch cannot use GPUs that NVML lists; None if it can use all of them.

    PyTorch is imported, which takes seconds.
    """
    import torch

    build = f"PyTorch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{build} was built without CUDA: install the locked requirements (make setup)"
    with warnings.catch_warnings():  # PyTorch warns of the fault that is returned
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    if not available:
        version, newest = driver()
        return (
            f"{build} for CUDA {torch.version.cuda} cannot use them: driver {version} supports "
            f"CUDA up to {newest}; install a newer driver"
        )
    oldest = min(int(arch[3:]) for arch in torch.cuda.get_arch_list() if arch[3:].isdigit())
    for number in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(number)
        if 10 * major + minor < oldest:
            return (
                f"{build} has no code for the {torch.cuda.get_device_name(number)} (compute "
                f"capability {major}.{minor}; the oldest is {oldest // 10}.{oldest % 10}): install "
                "a PyTorch for an older CUDA"
            )
    return None
