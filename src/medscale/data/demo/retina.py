"""Draws a synthetic fundus photograph: field of view, light, fovea, disc, cup and vessels.

The drawing has the parts of a photograph of the retina; it is no model of an eye.
"""

from __future__ import annotations

from itertools import pairwise, product

import cv2
import numpy as np

from medscale.data.demo.brush import FRACTION_BITS, colour, fixed_point, sigmoid, texture, to_uint8

RETINA, DISC, CUP = (186, 92, 50), (222, 138, 74), (252, 232, 186)  # RGB
BLOOD = np.array((0.45, 0.7, 0.7), np.float32)  # darkening of R, G and B by a vessel


def photograph(rng: np.random.Generator, cup_to_disc: float, size: int) -> np.ndarray:
    """Draw a photograph centred near the optic disc.

    Args:
        rng: determines everything but the ratio.
        cup_to_disc: vertical diameter of the cup over that of the disc, in (0, 1).
        size: pixels a side.

    Returns:
        uint8 RGB, shape size,size,3; black outside the round field of view.
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = axis[None, :], axis[:, None]
    side = rng.choice([-1.0, 1.0])  # the side of the fovea: left or right eye
    centre = np.array([side * rng.normal(0.12, 0.06), rng.normal(0, 0.06)])
    radius = rng.normal(0.46, 0.02)
    ground = 1 + 0.10 * texture(rng, size, size, 12) + 0.05 * texture(rng, size, size, 48)
    fovea = (x - centre[0] + side * 2 * radius) ** 2 + (y - centre[1] - 0.1 * radius) ** 2
    ground *= 1 - 0.4 * np.exp(-fovea / np.float32(0.16**2))
    image = ground[..., None] * colour(rng, RETINA, 0.05)
    _oval(image, x, y, centre, radius, rng.normal(0.95, 0.04), colour(rng, DISC, 0.04))
    cup_centre = centre + rng.normal(0, 0.03 * radius, 2)
    cup_radius = cup_to_disc * radius
    _oval(image, x, y, cup_centre, cup_radius, rng.normal(0.95, 0.05), colour(rng, CUP, 0.03))
    image *= 1 - _vessels(rng, size, centre, radius)[..., None] * BLOOD
    light = rng.normal(0, 0.25, 2)
    distance = (x - light[0]) ** 2 + (y - light[1]) ** 2
    shade = np.float32(rng.normal(1, 0.04)) - np.float32(0.2) * distance
    inside = sigmoid((np.float32(0.96) - np.sqrt(x**2 + y**2)) * 150)
    image *= (shade * inside)[..., None].astype(np.float32)
    image += (3 * inside * texture(rng, size, size, size // 3))[..., None]
    return to_uint8(image)


def _oval(
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    centre: np.ndarray,
    radius: float,
    aspect: float,
    paint: np.ndarray,
) -> None:
    """Paint, in place, an upright oval of semi-axes ``radius`` and ``aspect * radius``."""
    across = (x - np.float32(centre[0])) / np.float32(aspect)
    distance = np.sqrt(across**2 + (y - np.float32(centre[1])) ** 2)
    weight = sigmoid((np.float32(radius) - distance) * 100)[..., None]
    image += weight * (paint - image)


def _vessels(rng: np.random.Generator, size: int, centre: np.ndarray, radius: float) -> np.ndarray:
    """Return how much the vessels darken each pixel, in [0, 1].

    Arcades leave the disc upwards and downwards, and branch.
    """
    canvas = np.zeros((size, size), np.uint8)
    for up, out, _ in product((-1, 1), (-1, 1), range(2)):
        start = centre + rng.normal(0, 0.12 * radius, 2)
        angle = up * np.pi / 2 - up * out * rng.normal(0.35, 0.15)
        bend = up * out * rng.normal(-0.055, 0.025)
        _vessel(rng, canvas, start, angle, bend, rng.uniform(0.010, 0.020), 2)
    return cv2.GaussianBlur(canvas, (0, 0), max(size / 400, 0.3)).astype(np.float32) / 255


def _vessel(
    rng: np.random.Generator,
    canvas: np.ndarray,
    start: np.ndarray,
    angle: float,
    bend: float,
    width: float,
    branchings: int,
) -> None:
    """Draw a vessel that wanders from ``start`` and grows thinner, with branches."""
    size, steps = len(canvas), 24
    angles = angle + np.cumsum(bend + rng.normal(0, 0.06, steps))
    points = start + np.cumsum(0.065 * np.stack([np.cos(angles), np.sin(angles)], 1), 0)
    pixels = fixed_point(np.vstack([start, points]) + 1, size / 2).tolist()
    grey = int(150 + 100 * min(1, width / 0.02))
    branches = rng.random(steps) < (0.12 if branchings else 0)
    for step, (begin, end) in enumerate(pairwise(pixels)):
        thickness = max(1, round(width * size / 2 * (1 - step / 30)))
        cv2.line(canvas, begin, end, grey, thickness, cv2.LINE_AA, FRACTION_BITS)
        if branches[step]:
            turn = rng.choice([-1, 1])
            branch = angles[step] + turn * 0.6, -turn * 0.02, 0.6 * width, branchings - 1
            _vessel(rng, canvas, points[step], *branch)
