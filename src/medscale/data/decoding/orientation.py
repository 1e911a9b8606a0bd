"""The orientation in a file's EXIF data or tags, and its application to pixels."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # tag of EXIF and TIFF, values 1 to 8
QUARTER_TURNS = (5, 6, 7, 8)  # values that swap width and height
PILLOW_ERRORS = (  # what Pillow raises on damaged files
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError),
    *(struct.error, Image.DecompressionBombError),
)


def exif_orientation(image: Image.Image) -> int:
    """Return the orientation in an open file's EXIF data; 1 (upright) if none is recorded."""
    if not (exif := image.info.get("exif")):
        return 1
    fields = Image.Exif()
    fields.load(exif)
    value = fields.get(ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def recorded_orientation(data: bytes) -> int:
    """Return the orientation in a file's EXIF data; damaged ones are ignored, as in OpenCV."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return exif_orientation(image)
    except PILLOW_ERRORS:
        return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror pixels, shape H,W,…, according to an orientation (EXIF 2.32, 4.6.4)."""
    if orientation in QUARTER_TURNS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):  # stored from the bottom
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):  # stored from the right
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
