"""One image file's bytes to the pixels that networks are trained on: the same for shards and for new images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medscale.data.images import decode, jpeg_size
from medscale.data.preprocess import preprocess, reduction
from medscale.data.settings import Preprocess


class Prepared(NamedTuple):
    """A preprocessed image (uint8 RGB, shape size,size,3), and width and height in pixels as the original is shown."""

    pixels: np.ndarray
    width: int
    height: int


def from_file(data: bytes, settings: Preprocess, size: tuple[int, int]) -> np.ndarray:
    """Decode and preprocess a file's bytes, a large JPEG at reduced scale; uint8 RGB, shape size,size,3.

    Args:
        data: the file's bytes.
        settings: the preprocessing.
        size: width and height as the image is shown.

    Raises:
        Unreadable: as ``images.decode``.
    """
    return preprocess(decode(data, reduction(*size, settings.size, settings.margin)), settings)


def prepare(data: bytes, settings: Preprocess) -> Prepared:
    """The same for an image whose size is not known beforehand, as a new one's.

    Raises:
        Unreadable: as ``images.decode``.
    """
    if size := jpeg_size(data):
        reduce = reduction(*size, settings.size, settings.margin)
        pixels = decode(data, reduce)
        if (pixels.shape[1], pixels.shape[0]) == tuple(-(-side // reduce) for side in size):
            return Prepared(preprocess(pixels, settings), *size)
    pixels = decode(
        data
    )  # where a JPEG's header and its pixels disagree, the pixels count, as in the audit
    height, width = pixels.shape[:2]
    if size and reduction(width, height, settings.size, settings.margin) > 1:
        return Prepared(from_file(data, settings, (width, height)), width, height)
    return Prepared(preprocess(pixels, settings), width, height)
