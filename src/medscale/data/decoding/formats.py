"""Supported image formats, recognized by a file's first bytes, and reasons for faults."""

from __future__ import annotations

import numpy as np

from medscale.base.errors import MedscaleError
from medscale.data.decoding import bounds

# First bytes of the supported formats; a file's name does not matter. For DICOM see `kind_of`.
MAGIC = {
    "jpeg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG\r\n\x1a\n",),
    "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # the last two are BigTIFF's
    "webp": (b"RIFF",),
    "gif": (b"GIF87a", b"GIF89a"),
    "bmp": (b"BM",),
}
SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "webp": (".webp",),
    "gif": (".gif",),
    "bmp": (".bmp",),
    "dicom": (".dcm", ".dicom"),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
PREAMBLE = 132  # bytes of a DICOM file up to and including its mark

EMPTY, TRUNCATED, UNREADABLE, NOT_AN_IMAGE = "zero bytes", "truncated", "unreadable", "not an image"
# A file that exceeds a limit of ``bounds``, and a file that ends the decoding process.
TOO_LARGE, UNDECODABLE = "too large", "undecodable"


class Unreadable(MedscaleError):
    """A file cannot be decoded; ``reason`` is a reason of audit.csv, ``detail`` describes it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:
        """Return class and arguments, from which pickle creates the error in another process."""
        return type(self), (self.reason, self.detail)


def kind_of(data: bytes) -> str | None:
    """Return an image's format by its first bytes: a key of ``SUFFIXES``, or None.

    The content of a DICOM file's preamble is free (PS3.10, 7.1) and may be the start of a TIFF.
    DICOM's mark is therefore checked first.
    """
    if data[128:PREAMBLE] == b"DICM":
        return "dicom"
    for kind, starts in MAGIC.items():
        if data.startswith(starts) and (kind != "webp" or data[8:12] == b"WEBP"):
            return kind
    return None


def check_size(width: int, height: int, samples: int = 1) -> None:
    """Check the number of pixels of an image against ``bounds.max_pixels``.

    Args:
        width: width in pixels.
        height: height in pixels.
        samples: samples of each pixel; more than four count as further pixels.

    Raises:
        Unreadable: when the image is too large.
    """
    if width * height * max(1, samples / 4) > bounds.max_pixels:
        raise too_many_pixels(f"{width} x {height} pixels")


def too_many_pixels(pixels: str) -> Unreadable:
    """Return the fault of an image with too many pixels."""
    limit = f"{bounds.max_pixels / 1e6:g} megapixels"
    return Unreadable(TOO_LARGE, f"{pixels}; at most {limit} are read")


def check_frames(count: int) -> int:
    """Return the number of frames of a file, after checking it against ``bounds.MAX_FRAMES``.

    Raises:
        Unreadable: when there are more.
    """
    if count > bounds.MAX_FRAMES:
        raise Unreadable(TOO_LARGE, f"more than {bounds.MAX_FRAMES} frames")
    return count


def to_uint8(samples: np.ndarray, bits: int) -> np.ndarray:
    """Scale unsigned samples of up to 16 bits by their full range to 0 to 255, rounded."""
    if bits == 8:
        return samples.astype(np.uint8, copy=False)
    limit = 2**bits - 1
    # A look-up table: the division of each sample would take ten times as long, and four times the
    # memory.
    values = np.minimum(np.arange(2 ** (8 * samples.itemsize), dtype=np.uint32), limit)
    return ((values * 255 + limit // 2) // limit).astype(np.uint8)[samples]
