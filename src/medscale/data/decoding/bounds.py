"""Bounds on one image file: pixels, frames, inflated bytes, memory, time.

A small hostile file can take any amount of memory or time to decode. The service, the audit and
the preparation of shards decode in processes with all these limits (``limit_process``). Other
processes have only the bounds on pixels, frames and inflated bytes. The default limits are those
of ``data.settings.Limits``.
"""

from __future__ import annotations

import os
import resource
import signal

FRAMES_PER_TURN = 100  # number of frames that share the time limit of one image
MAX_FRAMES = 10_000  # frames of a file
MAX_INFLATED = 2**28  # bytes of a deflated DICOM file's data set
BYTES_PER_PIXEL = 40  # memory for decoding; the largest need is DICOM's look-up tables in 64 bit
SPARE = 512 * 2**20  # bytes of memory for libraries and for the file
NO_MEMORY = "decoding it takes more memory than an image of the allowed size needs"

max_pixels = 2**30  # pixels of a frame in this process; the default is OpenCV's own limit
_seconds = 0.0  # computing time for a file in this process; 0: no limit


def limit_process(pixels: int, seconds: float = 0) -> None:
    """Limit this process, which decodes untrusted files, until it ends.

    An allocation beyond the memory limit fails; Python raises MemoryError. Call this function
    before OpenCV is imported, which reads its own limit from the environment.

    Args:
        pixels: largest number of pixels of a frame; the memory limit follows from it.
        seconds: computing time (without waiting) for a file, see ``start_clock``; 0: no limit.
    """
    global max_pixels, _seconds
    max_pixels, _seconds = pixels, seconds
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
    """Start the clock of a file; SIGPROF ends the process when its time is over.

    The signal has no handler, so that it also ends a decoder in native code.
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
