"""JPEG files: decoding at full or reduced size; files with lost data are refused."""

from __future__ import annotations

import io
import re

import numpy as np
import simplejpeg
from PIL import Image

from medscale.data.decoding import raster
from medscale.data.decoding.formats import TRUNCATED, UNREADABLE, Unreadable, check_size
from medscale.data.decoding.orientation import (
    PILLOW_ERRORS,
    QUARTER_TURNS,
    exif_orientation,
    recorded_orientation,
    upright,
)

EXIF_MARK = b"Exif\0\0"
JPEG_START, START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
LOSSLESS, JPEG_LS = b"\xc3", b"\xf7"  # SOF3, SOF55
# SOF0 to SOF15 except DHT, JPG and DAC (ISO/IEC 10918-1, table B.1), SOF55 (ISO/IEC 14495-1)
FRAME_HEADERS = frozenset(bytes([code]) for code in range(0xC0, 0xD0)) | {JPEG_LS}
FRAME_HEADERS -= {b"\xc4", b"\xc8", b"\xcc"}
# libjpeg's warnings (jerror.h) of damaged pixels. Other warnings are about headers, or about a few
# bytes before the end mark, which cameras write and which damage no pixel.
DAMAGE = re.compile(r"premature end|corrupt jpeg data", re.IGNORECASE)
EXTRA = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
EXTRA_BYTES = 64  # more bytes at the end of a scan are a part of the image that was skipped


def decode(data: bytes, reduce: int = 1) -> np.ndarray:
    """Decode a JPEG to uint8 RGB of shape H,W,3, with the orientation of its EXIF data applied.

    The pixels equal those of OpenCV, which uses the same library (libjpeg-turbo). OpenCV does not
    report the library's warnings, so that lost data would become grey.

    Args:
        data: the file's bytes.
        reduce: 1, 2, 4 or 8: decode at 1/reduce of the size, in the DCT.

    Raises:
        Unreadable: when the file is truncated or damaged, with libjpeg's message.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # a variant that only OpenCV reads, or not a JPEG
        return _by_opencv(data, reduce)
    check_size(width, height)
    sides = {"min_height": -(-height // reduce), "min_width": -(-width // reduce)}
    cmyk = space in ("CMYK", "YCCK")
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            "CMYK" if cmyk else "RGB",
            fastdct=False,
            fastupsample=False,
            **({} if reduce == 1 else sides),
        )
    except ValueError as error:
        _check_damage(str(error), data)
        return _by_opencv(data, reduce)
    # OpenCV converts CMYK; below 16 pixels a reduced size does not determine the factor.
    if cmyk or (reduce > 1 and max(width, height) < 16):
        return raster.decode(data, "jpeg", reduce)
    has_exif = data.find(EXIF_MARK, 0, _first_scan(data)) >= 0
    return upright(pixels, recorded_orientation(data) if has_exif else 1)


def decode_grey(data: bytes) -> np.ndarray | None:
    """Decode a JPEG of one channel to its stored values, uint8 of shape H,W.

    A JPEG of several channels is only checked for damage; the result is None.

    Raises:
        Unreadable: when the file is truncated or damaged, with libjpeg's message.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        check_size(width, height)
        grey = space == "Gray"
        # Decoding at 1/8 of the size detects the same damage in half the time.
        options = {"colorspace": "GRAY"} if grey else {"min_factor": 8}
        pixels = simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False, **options)
    except ValueError as error:
        _check_damage(str(error), data)
        return None
    return pixels[..., 0] if grey else None


def size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG as displayed, from its header; None if that fails."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            is_turned = exif_orientation(image) in QUARTER_TURNS
            return (height, width) if is_turned else (width, height)
    except PILLOW_ERRORS:
        return None


def frame_header(stream: bytes) -> int | None:
    """Return the position of the frame header (SOF) of a JPEG or JPEG-LS; None without one."""
    position = 2
    while stream[:2] == JPEG_START and stream[position : position + 1] == b"\xff":
        marker = stream[position + 1 : position + 2]
        if marker in FRAME_HEADERS:
            return position if len(stream) >= position + 9 else None
        length = 2 + int.from_bytes(stream[position + 2 : position + 4])
        position += 1 if marker == b"\xff" else length
    return None


def _first_scan(data: bytes) -> int | None:
    """Return the position of the first scan (SOS), before which the EXIF data stand."""
    scan = data.find(START_OF_SCAN, frame_header(data) or 0)
    return scan if scan >= 0 else None


def _by_opencv(data: bytes, reduce: int) -> np.ndarray:
    """Decode a JPEG by OpenCV.

    Raises Unreadable for a lossless JPEG, a JPEG-LS, and samples of other than 8 bits: OpenCV would
    report such a file as damaged.
    """
    if (start := frame_header(data)) is not None:
        marker, bits = data[start + 1 : start + 2], data[start + 4]
        kind = {LOSSLESS: "a lossless JPEG", JPEG_LS: "a JPEG-LS"}.get(marker, "a JPEG")
        if marker in (LOSSLESS, JPEG_LS) or bits != 8:
            fault = f"{kind} of {bits} bits, which is not read; JPEGs of 8 bits with loss are"
            raise Unreadable(UNREADABLE, fault)
    return raster.decode(data, "jpeg", reduce)


def _check_damage(message: str, data: bytes) -> None:
    """Raise Unreadable if libjpeg's message reports lost or damaged data."""
    extra = EXTRA.search(message)
    if not DAMAGE.search(message) or (extra and int(extra[1]) <= EXTRA_BYTES):
        return
    is_truncated = "premature end" in message.lower() or b"\xff\xd9" not in data[-1024:]
    raise Unreadable(
        TRUNCATED if is_truncated else UNREADABLE,
        f"the jpeg data end early or are damaged (libjpeg: {message})",
    )
