"""Decoding by OpenCV to uint8 RGB, and of later frames of animations by Pillow."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from medscale.data.decoding.formats import (
    TRUNCATED,
    UNREADABLE,
    Unreadable,
    check_frames,
    check_size,
    to_uint8,
    too_many_pixels,
)
from medscale.data.decoding.orientation import (
    PILLOW_ERRORS,
    exif_orientation,
    recorded_orientation,
    upright,
)

OPENCVS_LIMITS = "CV_IO_MAX_IMAGE_"  # in the message on an image of too many pixels
COLOURS = 256  # number of colours of a full palette
REDUCTION_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def decode(data: bytes, kind: str, reduce: int = 1, flags: int = 0) -> np.ndarray:
    """Decode a file by OpenCV to uint8 RGB of shape H,W,3.

    Args:
        data: the file's bytes.
        kind: its format, for the message.
        reduce: 1, 2, 4 or 8: a JPEG becomes 1/reduce of its size; 1 for other formats.
        flags: further ``cv2.IMREAD`` flags.

    Raises:
        Unreadable: truncated or unreadable.
    """
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), REDUCTION_FLAGS[reduce] | cv2.IMREAD_ANYDEPTH | flags
        )
    except cv2.error as error:
        if OPENCVS_LIMITS in error.err:
            raise too_many_pixels(f"a {kind} image of too many pixels") from None
        raise Unreadable(UNREADABLE, f"the {kind} decoder: {error.err}") from None
    if image is None:
        has_end = kind != "jpeg" or b"\xff\xd9" in data[-1024:]
        raise Unreadable(
            UNREADABLE if has_end else TRUNCATED, f"the {kind} data end early or are damaged"
        )
    if image.dtype == np.uint16:
        image = to_uint8(image, 16)
    if image.dtype != np.uint8:
        raise Unreadable(UNREADABLE, f"{image.dtype} samples; 8 or 16 bit are read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_palette(data: bytes, kind: str) -> None:
    """Check that a GIF, PNG or BMP has a colour for each of its pixels.

    OpenCV shows a pixel whose number exceeds the palette as black. A transparent pixel needs no
    colour, such as those around a GIF's first frame. A file that Pillow cannot read, or whose
    palette it takes for grey values, is left to OpenCV.

    Raises:
        Unreadable: when a pixel of the first frame has no colour.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode != "P" or image.palette is None:
                return
            channels = image.palette.rawmode or image.palette.mode  # as stored, or as converted
            colours = len(image.palette.palette) // len(channels)
            if colours >= COLOURS:
                return
            check_size(*image.size)
            numbers, transparent = np.asarray(image), image.info.get("transparency")
            if isinstance(transparent, int):
                numbers = numbers[numbers != transparent]
            largest = int(numbers.max(initial=0))
    except PILLOW_ERRORS:
        return
    if largest >= colours:
        fault = f"a {kind} with a pixel of colour {largest}, whose palette ends at {colours - 1}"
        raise Unreadable(UNREADABLE, f"{fault}: the file is damaged, save it anew")


def webp(data: bytes) -> np.ndarray:
    """Decode a WebP; Pillow reads its EXIF data, since OpenCV misses those with a repeated mark.

    Raises:
        Unreadable: see ``decode``.
    """
    pixels = decode(data, "webp", flags=cv2.IMREAD_IGNORE_ORIENTATION)
    return upright(pixels, recorded_orientation(data) if b"EXIF" in data else 1)


def frame_count(data: bytes) -> int:
    """Return the number of frames of an animated GIF, PNG or WebP, without decoding them.

    Raises:
        Unreadable: too many.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return check_frames(int(getattr(image, "n_frames", 1)))
    except PILLOW_ERRORS:
        return 1  # the damage follows the first frame, which can be decoded


def later_frame(data: bytes, kind: str, frame: int) -> np.ndarray:
    """Decode a frame of an animation as displayed, on top of earlier frames; uint8 RGB.

    Raises:
        Unreadable: when the frame cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(*image.size)
            image.seek(frame)
            pixels = np.asarray(image.convert("RGBA"))[..., :3]
            return upright(pixels, exif_orientation(image))
    except PILLOW_ERRORS as error:
        raise Unreadable(UNREADABLE, f"frame {frame + 1} of the {kind}: {error}") from None
