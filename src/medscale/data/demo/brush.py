"""Brushes for synthetic photographs: smooth noise, soft edges, skin, blobs with an uneven border."""

from __future__ import annotations

import cv2
import numpy as np

SKIN = np.array(
    [(238, 204, 182), (222, 176, 146), (192, 140, 108), (140, 96, 70)], np.float32
)  # RGB, light to dark


def colour(rng: np.random.Generator, mean: tuple[int, int, int], spread: float) -> np.ndarray:
    """An RGB colour near ``mean``; float32, shape 3."""
    return np.multiply(mean, rng.normal(1, spread, 3)).astype(np.float32)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Logistic function: a soft step."""
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def texture(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise of standard deviation about 1, ``cells`` grains down; float32, shape height,width."""
    grid = rng.standard_normal((cells, max(2, round(cells * width / height)))).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def skin(rng: np.random.Generator, height: int, width: int, darkest: float) -> np.ndarray:
    """Bare skin, unevenly lit; float32 RGB, shape height,width,3.

    Args:
        rng: decides everything else.
        height: pixels.
        width: pixels.
        darkest: how far along ``SKIN``, in [0, 1], the tone may lie.
    """
    tone = rng.uniform(0, darkest) * (len(SKIN) - 1)
    base = SKIN[int(tone)] + (tone % 1) * (
        SKIN[min(int(tone) + 1, len(SKIN) - 1)] - SKIN[int(tone)]
    )
    ground = 1 + 0.04 * texture(rng, height, width, 4) + 0.03 * texture(rng, height, width, 40)
    direction = rng.normal(0, 0.10, 2).astype(np.float32)
    down, across = (np.linspace(-1, 1, length, dtype=np.float32) for length in (height, width))
    light = (
        np.float32(rng.normal(1, 0.06))
        + direction[0] * down[:, None]
        + direction[1] * across[None, :]
    )
    return (ground * light)[..., None] * (base * rng.normal(1, 0.03, 3).astype(np.float32))


def blob(
    rng: np.random.Generator,
    height: int,
    width: int,
    centre: tuple[float, float],
    radius: float,
    uneven: float,
) -> tuple[tuple[slice, slice], np.ndarray]:
    """How far each pixel near a blob lies inside it, in units of its radius along that direction.

    Args:
        rng: decides the border's waves and the elongation.
        height: of the image, pixels.
        width: of the image, pixels.
        centre: row and column, pixels.
        radius: mean radius, pixels.
        uneven: strength of the border's waves; 0 is an oval.

    Returns:
        The part of the image that holds the blob, and distances of its pixels: 0 at the centre, 1 on the border.
    """
    reach = radius * 1.6
    rows = slice(max(0, int(centre[0] - reach)), min(height, int(centre[0] + reach) + 2))
    columns = slice(max(0, int(centre[1] - reach)), min(width, int(centre[1] + reach) + 2))
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(centre[0]))[:, None]
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(centre[1]))[None, :]
    angle = np.arctan2(y, x) - np.float32(rng.uniform(0, np.pi))
    border = 1 + np.float32(rng.normal(0, 0.08)) * np.cos(2 * angle)
    for waves in range(3, 9):
        strength, phase = uneven * rng.normal(0, 0.5) / waves**0.5, rng.uniform(0, 2 * np.pi)
        border += np.float32(strength) * np.cos(waves * angle + np.float32(phase))
    return (rows, columns), np.hypot(x, y) / (np.float32(radius) * np.clip(border, 0.4, 1.6))
