"""Decoding and preprocessing of one image file, for shards as well as for new images."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medscale.base.errors import MedscaleError
from medscale.data.frames import frame_digest, read_frame
from medscale.data.images import Unreadable, decode, frame_count, jpeg_size
from medscale.data.index_file import NEW_INDEX
from medscale.data.preprocess import preprocess, reduction
from medscale.data.settings import Preprocess

NO_CONTRAST = "hardly any contrast"
FEWEST_LEVELS = 26  # of 256 grey levels: 12 bits in a file of 16 bits span 16 levels
IndexedImage = tuple[str, str, int, int]  # path, sha256, width, height as in the index


class PreparedImage(NamedTuple):
    """A preprocessed image."""

    pixels: np.ndarray  # uint8 RGB, shape size,size,3
    width: int  # of the original as displayed, pixels
    height: int  # of the original as displayed, pixels
    note: str | None = None  # which frame of several was used; hardly any contrast


def from_file(
    data: bytes, settings: Preprocess, size: tuple[int, int], frame: int = 0
) -> np.ndarray:
    """Decode and preprocess a file of known size; a large JPEG is decoded at a reduced scale.

    Args:
        data: the file's bytes.
        settings: the preprocessing.
        size: width and height as displayed.
        frame: number of the frame, from 0.

    Returns:
        uint8 RGB, shape size,size,3.

    Raises:
        Unreadable: see ``images.decode``.
    """
    factor = reduction(*size, settings.size, settings.margin)
    return preprocess(decode(data, factor, frame), settings)


def levels(pixels: np.ndarray) -> int:
    """Return the difference of the brightest and the darkest value of an image, 0 to 255."""
    return int(pixels.max()) - int(pixels.min())


def decode_reduced(
    data: bytes, size: int, margin: float = 1.0, frame: int = 0
) -> tuple[np.ndarray, int, int]:
    """Decode a file of unknown size; a large JPEG is decoded at a reduced scale.

    If the size in a JPEG's header differs from that of its pixels, the whole image is decoded.

    Args:
        data: the file's bytes.
        size: smallest length of both sides after decoding, in pixels.
        margin: see ``preprocess.reduction``.
        frame: number of the frame, from 0.

    Returns:
        Pixels (uint8 RGB, shape H,W,3), and width and height of the whole image as displayed.

    Raises:
        Unreadable: see ``images.decode``.
    """
    if header_size := jpeg_size(data):
        factor = reduction(*header_size, size, margin)
        pixels = decode(data, factor)
        if (pixels.shape[1], pixels.shape[0]) == tuple(-(-side // factor) for side in header_size):
            return pixels, *header_size
    pixels = decode(data, frame=frame)
    height, width = pixels.shape[:2]
    return pixels, width, height


def prepare(data: bytes, settings: Preprocess, frame: int = 0) -> PreparedImage:
    """Decode and preprocess an image of unknown size, such as a new image.

    Raises:
        Unreadable: see ``images.decode``.
    """
    pixels, width, height = decode_reduced(data, settings.size, settings.margin, frame)
    count = frame_count(data)
    notes = [f"frame {frame + 1} of the file's {count} frames was used"] if count > 1 else []
    if (span := levels(pixels)) < FEWEST_LEVELS:
        notes.append(f"{NO_CONTRAST}: its pixels span {span} of 255 levels")
    note = "; ".join(notes) or None
    whole = pixels.shape[:2] == (height, width)
    if whole and jpeg_size(data) and reduction(width, height, settings.size, settings.margin) > 1:
        # The JPEG's header has a wrong size: decode it at the same scale as for shards.
        return PreparedImage(from_file(data, settings, (width, height)), width, height, note)
    return PreparedImage(preprocess(pixels, settings), width, height, note)


def read_image(raw: str, image: IndexedImage, settings: Preprocess) -> np.ndarray:
    """Read, verify, decode and preprocess one image: uint8 RGB, shape size,size,3.

    Raises:
        MedscaleError: when it cannot be read, or has changed since it was indexed.
    """
    path, expected, width, height = image
    try:
        data, frame = read_frame(os.path.join(raw, path))
        if frame_digest(hashlib.sha256(data).hexdigest(), frame) == expected:
            return from_file(data, settings, (width, height), frame)
    except Unreadable as error:
        raise MedscaleError(
            f"{Path(raw, path)} cannot be read any more ({error}); {NEW_INDEX}"
        ) from None
    raise MedscaleError(f"{Path(raw, path)} has changed since it was indexed; {NEW_INDEX}")
