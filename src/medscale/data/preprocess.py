"""What is done once to each image before training: resize, CLAHE, gamma, median; uint8 RGB in and out."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from medscale.data.settings import Clahe, Preprocess


def preprocess(image: np.ndarray, settings: Preprocess) -> np.ndarray:
    """Bring an image to size x size and even out its contrast, in this order: resize, CLAHE, gamma, median.

    Args:
        image: uint8 RGB, shape H,W,3.
        settings: which steps, and their strengths; a step that is None is left out.

    Returns:
        uint8 RGB, shape size,size,3.
    """
    image = resize(
        middle_square(image) if settings.fit == "cover" else image, settings.size, settings.margin
    )
    if settings.clahe is not None:
        image = clahe(image, settings.clahe)
    if settings.gamma is not None:
        image = gamma(image, settings.gamma)
    return image if settings.median is None else cv2.medianBlur(image, settings.median)


def resize(image: np.ndarray, size: int, margin: float = 1.0) -> np.ndarray:
    """Resize to size x size; the aspect ratio is not kept, so that no part of the image is lost.

    As a JPEG is in its DCT, a large image is first shrunk by a whole factor (``reduction``), each pixel the mean of a
    square; what is then left, mostly below 2, is interpolated linearly. Against averaging over areas of any size, which
    takes ten times as long, that is up to 0.5 grey levels in the mean and 14 at most (``make bench-data``).
    """
    factor = reduction(image.shape[1], image.shape[0], size, margin)
    if factor > 1:
        image = cv2.resize(
            image,
            (image.shape[1] // factor, image.shape[0] // factor),
            interpolation=cv2.INTER_AREA,
        )
    sides = image.shape[:2]
    if sides == (size, size):
        return image
    far = (
        min(sides) >= size and max(sides) >= 2 * size
    )  # linear interpolation would leave pixels out
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if far else cv2.INTER_LINEAR
    )


def middle_square(image: np.ndarray) -> np.ndarray:
    """The largest square in the middle of an image, shape side,side,C."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def reduction(width: int, height: int, size: int, margin: float = 1.0) -> int:
    """By which whole factor an image of that size is shrunk first, a JPEG while it is decoded: 1, 2, 4 or 8.

    The largest of these that leaves both sides at least ``margin`` x size. Against averaging over the whole decoded
    photograph a JPEG (quality 92) differs by 0.6 grey levels in the mean and 20 at most with margin 1, by 0.2 and 4
    with margin 2 (``make bench-data`` measures it).
    """
    return next(
        factor
        for factor in (8, 4, 2, 1)
        if factor == 1 or min(width, height) >= margin * size * factor
    )


def clahe(image: np.ndarray, settings: Clahe) -> np.ndarray:
    """Contrast-limited adaptive histogram equalization (Zuiderveld 1994) of L in CIE LAB; colour stays."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    equalize = cv2.createCLAHE(settings.clip_limit, (settings.tiles, settings.tiles))
    cv2.insertChannel(equalize.apply(cv2.extractChannel(lab, 0)), lab, 0)
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def gamma(image: np.ndarray, value: float) -> np.ndarray:
    """Gamma correction, out = 255 (in / 255)^(1 / value): above 1 it brightens the dark parts."""
    return cv2.LUT(image, _gamma_table(value))


@cache
def _gamma_table(value: float) -> np.ndarray:
    return np.rint(255 * (np.arange(256) / 255) ** (1 / value)).astype(np.uint8)
