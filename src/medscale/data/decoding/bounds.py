"""Bounds on one image file: pixels, frames, inflated bytes, memory, time.

A small hostile file can take any amount of memory or time to decode. The service, the audit and
the writing of shards decode in processes with these limits (``limit_process``); other processes
have the bounds on pixels, frames and inflated bytes alone. The default limits are those of
``data.settings.Limits``.
"""

from __future__ import annotations

import os
import resource
import signal

FRAMES_PER_TURN = 100  # frames of a file that have, together, the time of one image
MOST_FRAMES = 10_000  # frames of a file
MOST_INFLATED = 2**28  # bytes of a deflated DICOM file's data set
BYTES_PER_PIXEL = 40  # most memory that decoding needs: DICOM's look-up tables are in 64 bit
SPARE = 512 * 2**20  # bytes of memory for libraries and for the file
NO_MEMORY = "decoding it takes more memory than an image of the allowed size needs"

most_pixels = 2**30  # of a frame, in this process; OpenCV's own limit
_seconds = 0.0  # of computing for a file in this process; 0: no limit


def limit_process(pixels: int, seconds: float = 0) -> None:
    """Limit this process, which decodes untrusted files, for the rest of its life.

    An allocation beyond the limit of memory fails, which Python reports as MemoryError. Call it
    before OpenCV is imported, which reads its own limit from the environment.

    Args:
        pixels: most pixels of a frame; memory is limited to what so many pixels need.
        seconds: of computing (not of waiting) for a file, see ``start_clock``; 0: no limit.
    """
    global most_pixels, _seconds
    most_pixels, _seconds = pixels, seconds
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(pixels)
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    import cv2
    from PIL import Image

    cv2.setNumThreads(1)
    Image.MAX_IMAGE_PIXELS = pixels
    memory = _data_bytes() + SPARE + BYTES_PER_PIXEL * pixels
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would keep the image


def start_clock(frames: int = 1) -> None:
    """Start the clock of a file; SIGPROF ends the process when the time is over.

    Without a handler the signal also ends a decoder that runs no Python code.
    """
    if _seconds:
        turns = -(-frames // FRAMES_PER_TURN)
        signal.setitimer(signal.ITIMER_PROF, _seconds * max(1, turns))


def stop_clock() -> None:
    """Stop the clock of a file."""
    signal.setitimer(signal.ITIMER_PROF, 0)


def _data_bytes() -> int:
    """Return the bytes of memory that this process holds for data (VmData)."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))
