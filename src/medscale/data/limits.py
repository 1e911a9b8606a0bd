"""Limits of the loader and the shards that the cost model uses too; imports no PyTorch."""

from __future__ import annotations

# A split that needs less than this share of the free device memory stays on the device.
RESIDENT_SHARE = 0.5
CHUNKS = 256  # enough for all Dask workers, few enough to keep all files open
SMALLEST_CHUNK, LARGEST_CHUNK = 16, 1024  # images


def chunk_size(images: int) -> int:
    """Return the images of a chunk of shards if the configuration does not set it.

    It does not depend on the number of workers, so that the bytes of the shards do not either.
    """
    return min(max(-(-images // CHUNKS), SMALLEST_CHUNK), LARGEST_CHUNK)
