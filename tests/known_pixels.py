"""Image files of known pixels, and a check that `decode` gives these."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import tifffile
from hypothesis import settings
from PIL import Image, ImageOps

from medscale.data.images import decode

many = settings(deadline=None, max_examples=120, derandomize=True)


def smooth(seed: int, height: int, width: int, channels: int, bits: int) -> np.ndarray:
    """Values of 0 to 2**bits - 1 with both ends, shape H,W,channels."""
    rng = np.random.default_rng(seed)
    values = cv2.resize(rng.random((3, 4, channels)), (width, height)).reshape(height, width, -1)
    values = (values - values.min()) / max(np.ptp(values), 1e-9)
    return np.rint(values * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def rotate(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned by Pillow, whose EXIF orientation is the reference."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def in_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)


def check(data: bytes, expected: np.ndarray, tolerance: int = 0, frame: int = 0) -> None:
    pixels = decode(data, frame=frame)
    assert (pixels.dtype, pixels.shape) == (np.uint8, expected.shape)
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def tiff(
    samples: np.ndarray, orientation: int = 1, pages: int = 1, container: str = "<", **options: Any
) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff="+" in container, byteorder=container[0]) as writer:
        for _ in range(pages):
            tags = [(274, "H", 1, orientation, True)]
            writer.write(samples, extratags=tags, metadata=None, contiguous=False, **options)
    return file.getvalue()
