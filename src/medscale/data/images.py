"""Reading one image file: its kind by content, its fault if it has one, its pixels as RGB uint8."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import kornia_rs.io
import numpy as np
from PIL import Image

from medscale.base.errors import MedscaleError

# Kinds that OpenCV decodes, by the first bytes of the file; its name is not asked.
MAGIC = {
    "jpeg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG\r\n\x1a\n",),
    "tiff": (b"II*\0", b"MM\0*"),
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
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}

NOT_PLAIN = {b"tRNS", b"eXIf", b"acTL"}  # transparency, orientation, animation
MANY_PIXELS = 2**28  # more is left to OpenCV, which refuses a billion

ORIENTATION, QUARTER_TURNED = (
    0x0112,
    (5, 6, 7, 8),
)  # EXIF's tag, and its values that swap width and height

EMPTY, TRUNCATED, UNREADABLE, NOT_AN_IMAGE = "zero bytes", "truncated", "unreadable", "not an image"


class Unreadable(MedscaleError):
    """A file that gives no pixels: ``reason`` is one of the audit's, ``detail`` what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def kind_of(data: bytes) -> str | None:
    """Kind of an image by its first bytes: a key of ``SUFFIXES``, or None for anything else."""
    if (
        data[128:132] == b"DICM"
    ):  # PS3.10, 7.1; the 128 bytes before are free and may look like another kind
        return "dicom"
    for kind, starts in MAGIC.items():
        if data.startswith(starts) and (kind != "webp" or data[8:12] == b"WEBP"):
            return kind
    return None


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file.

    Raises:
        Unreadable: when the system does not give them (no right to read, a broken link, a disk error).
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(UNREADABLE, error.strerror or str(error)) from None


def read_rgb(path: str | Path) -> np.ndarray:
    """Read an image file as uint8 RGB of shape H,W,3; see ``decode``."""
    return decode(read_bytes(path))


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG as it is shown (EXIF applied), from its header; None where it does not tell."""
    if kind_of(data) != "jpeg":
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            return (
                (height, width)
                if image.getexif().get(ORIENTATION) in QUARTER_TURNED
                else (width, height)
            )
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return None


def decode(data: bytes, reduce: int = 1) -> np.ndarray:
    """Decode an image file's bytes to uint8 RGB of shape H,W,3.

    Grey and palette images become RGB, CMYK is converted; alpha is dropped (the recorded colour is kept, as it is, also
    where it is transparent); 16 bit a channel is scaled by its full range (65535 becomes 255, rounded); the orientation
    in EXIF is applied; of an animation the first frame is read. DICOM: see ``medscale.data.dicom.decode``.

    Args:
        data: the file's bytes.
        reduce: 1, 2, 4 or 8: a JPEG is decoded at 1/reduce of its size in the DCT, which is faster; other kinds are
            decoded whole.

    Raises:
        Unreadable: with the reason (zero bytes, not an image, truncated, unreadable) and what was seen.
    """
    kind = kind_of(data)
    if fault := _fault(data, kind):
        raise fault
    if kind == "dicom":
        from medscale.data import (
            dicom,
        )  # it imports this module, and only studies of DICOM need pydicom

        return dicom.decode(data)
    if kind == "png" and (size := _plain_png(data, _png_chunks(data))):
        return _rgb_png(data, size)
    flags = REDUCED[reduce if kind == "jpeg" else 1] | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise Unreadable(UNREADABLE, f"the {kind} decoder: {error.err}") from None
    if image is None:
        ended = kind != "jpeg" or b"\xff\xd9" in data[-1024:]
        raise Unreadable(
            UNREADABLE if ended else TRUNCATED, f"the {kind} data end early or are damaged"
        )
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.dtype != np.uint8:
        raise Unreadable(UNREADABLE, f"{image.dtype} samples; 8 or 16 bit are read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _plain_png(data: bytes, chunks: set[bytes]) -> tuple[int, int] | None:
    """Height and width of a PNG of 8 bits, RGB, not interlaced, with nothing that changes its colours or turns it.

    Such files, by far the most, are decoded by kornia-rs, to the same pixels as by OpenCV in half the time; None for
    any other.
    """
    if b"IHDR" not in chunks or chunks & NOT_PLAIN:
        return None
    width, height, *form = struct.unpack_from(">IIBBBBB", data, 16)
    return (height, width) if form == [8, 2, 0, 0, 0] and 0 < width * height < MANY_PIXELS else None


def _rgb_png(data: bytes, size: tuple[int, int]) -> np.ndarray:
    try:
        return np.asarray(kornia_rs.io.decode_image_png_u8(data, size, "rgb"))
    except Exception as error:  # it raises no other kind
        raise Unreadable(UNREADABLE, f"the png decoder: {error}") from None


def header(data: bytes) -> dict[str, Any] | None:
    """What a file's headers tell beside its pixels: for DICOM see ``medscale.data.dicom.dicom_facts``, else None."""
    if kind_of(data) != "dicom":
        return None
    from medscale.data import dicom

    return dicom.dicom_facts(data)


def _fault(data: bytes, kind: str | None) -> Unreadable | None:
    if not data:
        return Unreadable(EMPTY, "the file is empty")
    if kind is None:
        return Unreadable(NOT_AN_IMAGE, f"begins with {data[:8]!r}; read are {', '.join(SUFFIXES)}")
    return None


def _png_chunks(data: bytes) -> set[bytes]:
    """Names of a PNG's chunks (ISO/IEC 15948, 5.3), each CRC checked: decoders report damage less clearly.

    Raises:
        Unreadable: when a checksum is wrong, or the file ends early.
    """
    at, names = 8, set[bytes]()
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if (
            zlib.crc32(memoryview(data)[at + 4 : end - 4])
            != struct.unpack_from(">I", data, end - 4)[0]
        ):
            raise Unreadable(
                UNREADABLE, f"the checksum of the PNG chunk {name!r} at byte {at} is wrong"
            )
        names.add(name)
        if name == b"IEND":
            return names
        at = end
    raise Unreadable(TRUNCATED, f"the PNG ends after {len(data)} bytes without its end mark")
