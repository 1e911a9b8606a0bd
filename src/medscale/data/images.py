"""Reading of one image file: format by content, faults, and pixels as RGB uint8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medscale.data.decoding import jpeg, png, raster, structure
from medscale.data.decoding.formats import (
    EMPTY,
    IMAGE_SUFFIXES,
    NOT_AN_IMAGE,
    PREAMBLE,
    SUFFIXES,
    TOO_LARGE,
    UNREADABLE,
    Unreadable,
    kind_of,
)

# Names for rooms that do not decode.
__all__ = ["NOT_AN_IMAGE", "TOO_LARGE", "UNREADABLE", "Unreadable", "kind_of"]


def read_bytes(path: str | Path) -> bytes:
    """Return all bytes of a file.

    Raises:
        Unreadable: when the file cannot be read (no permission, a broken link, a disk error).
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(UNREADABLE, error.strerror or str(error)) from None


def read_rgb(path: str | Path) -> np.ndarray:
    """Read an image file as uint8 RGB of shape H,W,3; see ``decode``.

    Raises:
        Unreadable: see ``read_bytes`` and ``decode``.
    """
    return decode(read_bytes(path))


def is_named_image(path: Path) -> bool:
    """Return whether a file is an image by its name, or a DICOM file by its preamble.

    The preamble is read for names without an ending or with a number as ending, which occur on
    DICOM media (PS3.10) and in exports named by UID, and for Siemens' ``.ima``.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix not in ("", ".", ".ima") and not suffix[1:].isdigit():
        return False
    try:
        with open(path, "rb") as file:
            return kind_of(file.read(PREAMBLE)) == "dicom"
    except OSError:
        return False


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG as it is shown, by its header; None for other files."""
    return jpeg.size(data) if kind_of(data) == "jpeg" else None


def decode(data: bytes, reduce: int = 1, frame: int = 0) -> np.ndarray:
    """Decode an image file's bytes to uint8 RGB of shape H,W,3.

    Grey, palette and CMYK images are converted to RGB. Alpha is dropped; transparent pixels keep
    their recorded colour. Samples of other than 8 bits are scaled by their full range (of 16 bits,
    65535 becomes 255) and rounded. The recorded orientation is applied. For DICOM see
    ``medscale.data.decoding.dicom``.

    Args:
        data: bytes of the file.
        reduce: 1, 2, 4 or 8: a JPEG is decoded at 1/reduce of its size in the DCT, which is faster;
            other formats are decoded at full size.
        frame: number of the frame or page, from 0.

    Raises:
        Unreadable: with the reason (zero bytes, not an image, truncated, unreadable) and a detail.
            A file whose decoding would take too long is unreadable, too (``structure.check``).
    """
    kind = _kind(data)
    structure.check(data, kind)
    if kind == "jpeg":
        return jpeg.decode(data, reduce)
    # The libraries for DICOM and TIFF take long to import, and most studies need neither.
    if kind == "dicom":
        from medscale.data.decoding import dicom

        return dicom.decode(data, frame)
    if kind == "tiff":
        from medscale.data.decoding import tiff

        return tiff.decode(data, frame)
    if frame:
        return raster.later_frame(data, kind, frame)
    if kind == "png":
        return png.decode(data)
    if kind == "webp":
        return raster.webp(data)
    raster.check_palette(data, kind)
    return raster.decode(data, kind)


def frame_count(data: bytes) -> int:
    """Return the number of frames or pages of an image file; a JPEG and a BMP have one.

    Raises:
        Unreadable: when the headers are damaged.
    """
    kind = _kind(data)
    if kind == "dicom":
        from medscale.data.decoding import dicom

        return dicom.frame_count(data)
    if kind == "tiff":
        from medscale.data.decoding import tiff

        return tiff.frame_count(data)
    # The header of an extended WebP file has a bit that marks animations (RFC 9649, section 2.7).
    flags = int.from_bytes(data[20:21]) if data[12:16] == b"VP8X" else 0
    animated = kind == "gif" or (kind == "webp" and bool(flags & 2))
    if animated or (kind == "png" and b"acTL" in data[: data.find(b"IDAT")]):
        return raster.frame_count(data)
    return 1


def header(data: bytes) -> dict[str, Any] | None:
    """Return facts of the patient in a DICOM file's headers (``dicom_facts``), otherwise None."""
    if kind_of(data) != "dicom":
        return None
    from medscale.data.decoding import dicom

    return dicom.dicom_facts(data)


def _kind(data: bytes) -> str:
    """Return the format of a file's bytes.

    Raises:
        Unreadable: zero bytes, or not an image.
    """
    if not data:
        raise Unreadable(EMPTY, "the file is empty")
    if (kind := kind_of(data)) is None:
        raise Unreadable(NOT_AN_IMAGE, f"begins with {data[:12]!r}; read are {', '.join(SUFFIXES)}")
    return kind
