"""Measured ceilings of a device: FLOP/s of a large matrix product, bytes/s of a triad (STREAM).

Both are ceilings of the roofline model (Williams, Waterman and Patterson, CACM 52(4), 2009). The
triad ``a = b + s c`` and its count of three arrays are those of STREAM (McCalpin 1995).
"""

import time
from collections.abc import Callable

import torch

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Sides of the square matrices; the faster product counts.
SIDES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
ELEMENTS = {"cpu": 2**25, "cuda": 2**28}  # of each float32 array of the triad: exceeds all caches
SECONDS = 0.3  # for which a measurement is repeated; the fastest repetition counts


def measure(device: torch.device, name: str) -> dict[str, float]:
    """Measure ``flops`` (FLOP/s) and ``bytes`` (bytes/s) with the threads of this process.

    Args:
        device: device to measure.
        name: number format of the product, a key of ``DTYPES``.
    """
    allow_before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        products = [_product(device, DTYPES[name], side) for side in SIDES[device.type]]
        return {"flops": max(products), "bytes": _triad(device)}
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allow_before


def _product(device: torch.device, dtype: torch.dtype, side: int) -> float:
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _fastest(lambda: torch.mm(left, right, out=out), device)


def _triad(device: torch.device) -> float:
    count = ELEMENTS[device.type]
    a, b, c = (torch.ones(count, device=device) for _ in range(3))
    return 3 * 4 * count / _fastest(lambda: torch.add(b, c, alpha=3.0, out=a), device)


def _fastest(action: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest repetition; the first one warms up and does not count."""
    best, end = float("inf"), 0.0
    while best == float("inf") or time.perf_counter() < end:
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        seconds = time.perf_counter() - start
        if not end:
            end = time.perf_counter() + SECONDS
            continue
        best = min(best, seconds)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
