"""The formats that are read, known by a file's first bytes, and why a file gives no pixels."""

from __future__ import annotations

import numpy as np

from medscale.base.errors import MedscaleError
from medscale.data.decoding import bounds

# First bytes of the formats that are read; a file's name plays no part. DICOM: see `kind_of`.
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
TOO_LARGE, UNDECODABLE = "too large", "undecodable"  # breaks a limit of ``bounds``; ends a process


class Unreadable(MedscaleError):
    """A file gives no pixels: ``reason`` is one of the audit's, ``detail`` what the file has."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:
        """Return the class and arguments from which pickle makes the error in another process."""
        return type(self), (self.reason, self.detail)


def kind_of(data: bytes) -> str | None:
    """Return an image's format by its first bytes: a key of ``SUFFIXES``, or None if it has none.

    The preamble of a DICOM file (PS3.10, 7.1) is free and may be the start of a TIFF, so that its
    mark is looked for first.
    """
    if data[128:PREAMBLE] == b"DICM":
        return "dicom"
    for kind, starts in MAGIC.items():
        if data.startswith(starts) and (kind != "webp" or data[8:12] == b"WEBP"):
            return kind
    return None


def check_size(width: int, height: int, samples: int = 1) -> None:
    """Refuse an image of more pixels than this process may decode (``bounds.most_pixels``).

    Args:
        width: in pixels.
        height: in pixels.
        samples: of each pixel; more than four count as further pixels.

    Raises:
        Unreadable: too large, with width and height.
    """
    if width * height * max(1, samples / 4) > bounds.most_pixels:
        raise too_many_pixels(f"{width} x {height} pixels")


def too_many_pixels(pixels: str) -> Unreadable:
    """Return the fault of an image with more pixels than may be decoded."""
    most = f"{bounds.most_pixels / 1e6:g} megapixels"
    return Unreadable(TOO_LARGE, f"{pixels}; at most {most} are read")


def check_frames(count: int) -> int:
    """Return the number of frames of a file, after checking it against the limit.

    Raises:
        Unreadable: too large: more than ``bounds.MOST_FRAMES``.
    """
    if count > bounds.MOST_FRAMES:
        raise Unreadable(TOO_LARGE, f"more than {bounds.MOST_FRAMES} frames")
    return count


def to_uint8(samples: np.ndarray, bits: int) -> np.ndarray:
    """Scale unsigned samples of up to 16 bits by their full range to 0 to 255, rounded."""
    if bits == 8:
        return samples.astype(np.uint8, copy=False)
    most = 2**bits - 1
    # By a table: dividing each sample takes ten times as long, and four times the memory.
    values = np.minimum(np.arange(2 ** (8 * samples.itemsize), dtype=np.uint32), most)
    return ((values * 255 + most // 2) // most).astype(np.uint8)[samples]
