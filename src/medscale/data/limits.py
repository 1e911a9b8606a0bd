"""Limits of loader and shards; a module without PyTorch, since the cost model imports it, too."""

from __future__ import annotations

# A split that needs less than this share of the free device memory is kept on the device.
RESIDENT_SHARE = 0.5
CHUNKS = 256  # enough for all Dask workers, and few enough to keep all files open
SMALLEST_CHUNK, LARGEST_CHUNK = 16, 1024  # images


def chunk_size(images: int) -> int:
    """Return the number of images of a chunk if the configuration does not set it.

    Neither it nor the bytes of the shards depend on the number of workers.
    """
    return min(max(-(-images // CHUNKS), SMALLEST_CHUNK), LARGEST_CHUNK)
