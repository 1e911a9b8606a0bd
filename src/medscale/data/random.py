"""Counter-based random numbers: pure functions of (seed, epoch, sample, draw), without state."""

from __future__ import annotations

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
SHUFFLE, AUGMENT = 0, 1  # streams: numbers for different purposes are independent


def bits(seed: int, stream: int, epoch: int, samples: np.ndarray, draws: int = 1) -> np.ndarray:
    """Return random 64-bit numbers.

    The SplitMix64 mixer (Steele, Lea & Flood, OOPSLA 2014) is applied to chained counters.

    Args:
        seed: the replicate's seed.
        stream: purpose of the numbers (``SHUFFLE`` or ``AUGMENT``).
        epoch: number of the epoch.
        samples: identifiers of the samples, int64, shape n.
        draws: numbers per sample.

    Returns:
        uint64, shape (n, draws); row i depends on ``samples[i]`` alone, not on the other rows.
    """
    with np.errstate(over="ignore"):  # SplitMix64 computes modulo 2^64
        state = _mix(np.array(seed, np.int64).astype(np.uint64))
        for counter in (stream, epoch):
            state = _mix(state ^ np.array(counter, np.int64).astype(np.uint64))
        state = _mix(state ^ np.asarray(samples, np.int64).astype(np.uint64))
        return _mix(state[:, None] + _GAMMA * np.arange(draws, dtype=np.uint64))


def uniform(seed: int, stream: int, epoch: int, samples: np.ndarray, draws: int) -> np.ndarray:
    """Return uniform numbers in [0, 1), float32, shape (n, draws), from 24 bits of ``bits``."""
    upper = bits(seed, stream, epoch, samples, draws) >> np.uint64(40)
    return upper.astype(np.float32) * np.float32(2**-24)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of ``count`` samples in an epoch: int64, shape ``count``."""
    return np.argsort(bits(seed, SHUFFLE, epoch, np.arange(count))[:, 0], kind="stable")


def _mix(state: np.ndarray) -> np.ndarray:
    """Return one SplitMix64 output for each state."""
    state = state + _GAMMA
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
