"""Preprocessing of an image before training: resize, CLAHE, gamma, median."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from medscale.data.settings import Clahe, Preprocess


def preprocess(image: np.ndarray, settings: Preprocess) -> np.ndarray:
    """Resize an image and even out its contrast: resize, CLAHE, gamma, median, in this order.

    Args:
        image: uint8 RGB, shape H,W,3.
        settings: strengths of the steps; a step that is None is skipped.

    Returns:
        uint8 RGB, shape size,size,3.
    """
    if settings.fit == "cover":
        image = middle_square(image)
    image = resize(image, settings.size, settings.margin)
    if settings.clahe is not None:
        image = clahe(image, settings.clahe)
    if settings.gamma is not None:
        image = gamma(image, settings.gamma)
    return image if settings.median is None else cv2.medianBlur(image, settings.median)


def resize(image: np.ndarray, size: int, margin: float = 1.0) -> np.ndarray:
    """Resize to size x size; the aspect ratio changes, so that no part of the image is lost.

    A large image is first reduced by a whole factor (``reduction``): each pixel is the mean of a
    square, as in the reduced decoding of a JPEG. The remaining factor, mostly below 2, is
    interpolated linearly. Averaging over areas of any size takes ten times as long. The results
    differ by up to 0.5 grey levels in the mean and 14 at most on generated photographs (``make
    bench-data``), and by up to 1.2 in the mean and 81 at the edge of a letter on 12 radiographs of
    1024 x 1024 pixels (NIH ChestX-ray), resized to 96 or 224; by 0.4 and 34 with margin 2.
    """
    height, width = image.shape[:2]
    factor = reduction(width, height, size, margin)
    if factor > 1:
        target = width // factor, height // factor
        image = cv2.resize(image, target, interpolation=cv2.INTER_AREA)
    sides = image.shape[:2]
    if sides == (size, size):
        return image
    # By a factor of 2 or more, linear interpolation would skip pixels.
    large = min(sides) >= size and max(sides) >= 2 * size
    interpolation = cv2.INTER_AREA if large else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)


def middle_square(image: np.ndarray) -> np.ndarray:
    """Return the largest square in the middle of an image, shape side,side,C."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def reduction(width: int, height: int, size: int, margin: float = 1.0) -> int:
    """Return the whole factor by which an image is reduced first: 1, 2, 4 or 8.

    A JPEG is reduced by this factor during its decoding. It is the largest factor that leaves both
    sides at least ``margin`` x size. The result differs from averaging over the whole image: for a
    photograph as a JPEG of quality 92, by 0.6 grey levels in the mean and 20 at most with margin 1,
    and by 0.2 and 4 with margin 2 (``make bench-data``); see ``resize`` for radiographs.
    """
    side = min(width, height)
    return next((factor for factor in (8, 4, 2) if side >= margin * size * factor), 1)


def clahe(image: np.ndarray, settings: Clahe) -> np.ndarray:
    """Equalize the lightness locally, with limited contrast (CLAHE, Zuiderveld 1994).

    The lightness is L of CIE LAB; the colour components do not change.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    equalize = cv2.createCLAHE(settings.clip_limit, (settings.tiles, settings.tiles))
    cv2.insertChannel(equalize.apply(cv2.extractChannel(lab, 0)), lab, 0)
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def gamma(image: np.ndarray, value: float) -> np.ndarray:
    """Correct gamma, out = 255 (in / 255)^(1 / value): a value above 1 brightens dark parts."""
    return cv2.LUT(image, _gamma_table(value))


@cache
def _gamma_table(value: float) -> np.ndarray:
    return np.rint(255 * (np.arange(256) / 255) ** (1 / value)).astype(np.uint8)
