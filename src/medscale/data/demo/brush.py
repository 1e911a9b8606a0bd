"""Drawing functions for synthetic photographs: smooth noise, soft edges, skin, irregular blobs."""

from __future__ import annotations

import cv2
import numpy as np

# Skin tones from light to dark, RGB.
SKIN = np.array([(238, 204, 182), (222, 176, 146), (192, 140, 108), (140, 96, 70)], np.float32)
FRACTION_BITS = 4  # of OpenCV's fixed-point coordinates: lines are placed to 1/16 pixel


def colour(rng: np.random.Generator, mean: tuple[int, int, int], spread: float) -> np.ndarray:
    """Return an RGB colour near ``mean``; float32, shape 3."""
    return np.multiply(mean, rng.normal(1, spread, 3)).astype(np.float32)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return the logistic function of ``values``: a soft step at 0."""
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Return an image rounded and limited to [0, 255]; uint8."""
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def texture(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Return smooth noise of standard deviation about 1; float32, shape height,width.

    ``cells`` is the number of grains along the height.
    """
    grid = rng.standard_normal((cells, max(2, round(cells * width / height)))).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def fixed_point(points: np.ndarray, scale: float) -> np.ndarray:
    """Return scaled points as OpenCV's fixed-point coordinates; int32."""
    return np.rint(points * (scale * 2**FRACTION_BITS)).astype(np.int32)


def polyline(size: int, points: np.ndarray, thickness: int) -> np.ndarray:
    """Draw a line through points; values in [0, 1], float32, shape size,size.

    Args:
        size: pixels a side.
        points: x and y as shares of the side, shape N,2.
        thickness: pixels.
    """
    canvas = np.zeros((size, size), np.uint8)
    pixels = fixed_point(points, size)
    cv2.polylines(canvas, [pixels], False, 255, thickness, cv2.LINE_AA, FRACTION_BITS)
    return canvas.astype(np.float32) / 255


def skin(rng: np.random.Generator, height: int, width: int, darkest: float) -> np.ndarray:
    """Draw bare skin, unevenly lit; float32 RGB, shape height,width,3.

    Args:
        rng: determines tone, texture and light.
        height: pixels.
        width: pixels.
        darkest: darkest allowed tone as a position along ``SKIN``, in [0, 1].
    """
    tone = rng.uniform(0, darkest) * (len(SKIN) - 1)
    lighter, darker = SKIN[int(tone)], SKIN[min(int(tone) + 1, len(SKIN) - 1)]
    base = lighter + (tone % 1) * (darker - lighter)
    ground = 1 + 0.04 * texture(rng, height, width, 4) + 0.03 * texture(rng, height, width, 40)
    direction = rng.normal(0, 0.10, 2).astype(np.float32)
    down, across = (np.linspace(-1, 1, length, dtype=np.float32) for length in (height, width))
    light = np.float32(rng.normal(1, 0.06))
    light = light + direction[0] * down[:, None] + direction[1] * across[None, :]
    return (ground * light)[..., None] * (base * rng.normal(1, 0.03, 3).astype(np.float32))


def blob(
    rng: np.random.Generator,
    height: int,
    width: int,
    centre: tuple[float, float],
    radius: float,
    irregularity: float,
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the relative distance of pixels from the centre of an irregular blob.

    Args:
        rng: determines the border's waves and the elongation.
        height: of the image, pixels.
        width: of the image, pixels.
        centre: row and column, pixels.
        radius: mean radius, pixels.
        irregularity: strength of the border's waves; 0 gives an oval.

    Returns:
        The part of the image that holds the blob, and distances of its pixels: 0 at the centre, 1
        on the border.
    """
    reach = radius * 1.6
    rows = slice(max(0, int(centre[0] - reach)), min(height, int(centre[0] + reach) + 2))
    columns = slice(max(0, int(centre[1] - reach)), min(width, int(centre[1] + reach) + 2))
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(centre[0]))[:, None]
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(centre[1]))[None, :]
    angle = np.arctan2(y, x) - np.float32(rng.uniform(0, np.pi))
    border = 1 + np.float32(rng.normal(0, 0.08)) * np.cos(2 * angle)
    for waves in range(3, 9):
        strength = irregularity * rng.normal(0, 0.5) / waves**0.5
        phase = rng.uniform(0, 2 * np.pi)
        border += np.float32(strength) * np.cos(waves * angle + np.float32(phase))
    return (rows, columns), np.hypot(x, y) / (np.float32(radius) * np.clip(border, 0.4, 1.6))
