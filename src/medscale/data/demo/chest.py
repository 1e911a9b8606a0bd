"""Draws a synthetic frontal chest X-ray: body, lungs, heart, bones, vessels and findings.

The drawing has the parts of a radiograph; it is no model of a patient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from medscale.data.demo.brush import (
    FRACTION_BITS,
    fixed_point,
    polyline,
    sigmoid,
    texture,
    to_uint8,
)

AIR, SOFT, LUNG, DENSE = 14.0, 150.0, 62.0, 205.0  # grey levels of the tissues
BOX_SIGMAS = 1.5  # half a side of an opacity's box in standard deviations of its density


class Opacity(NamedTuple):
    """A soft density in a lung."""

    x: float  # centre, as a share of the frame's side
    y: float  # centre, as a share of the frame's side
    width: float  # standard deviation along x, as a share of the frame's side
    height: float  # standard deviation along y, as a share of the frame's side
    grey: float  # grey level at the centre above that of the lung

    def box(self, size: int) -> list[float]:
        """Return its bounding box in a frame of ``size`` pixels a side: x, y, width, height."""
        reach = BOX_SIGMAS * self.width, BOX_SIGMAS * self.height
        left, top = (round(max(0.0, c - r) * size) for c, r in zip(self[:2], reach, strict=True))
        right, low = (round(min(1.0, c + r) * size) for c, r in zip(self[:2], reach, strict=True))
        return [float(left), float(top), float(right - left), float(low - top)]


@dataclass(frozen=True)
class Anatomy:
    """A patient as posed in an exam; lengths are shares of the frame's side."""

    centre: float
    top: float
    diaphragm: float
    lung_distance: float
    lung_width: float
    heart: float
    ribs: float
    slope: float

    @classmethod
    def draw(
        cls, patient: np.random.Generator, exam: np.random.Generator, anteroposterior: bool
    ) -> Anatomy:
        """Draw the anatomy; posture and breath vary from exam to exam.

        An AP exam, taken of a lying patient, shows a larger heart.
        """
        build, breath = patient.normal(1, 0.05), exam.normal(0, 0.02)
        return cls(
            centre=0.5 + exam.normal(0, 0.02),
            top=0.16 + exam.normal(0, 0.025),
            diaphragm=0.76 + patient.normal(0, 0.02) + breath - 0.05 * anteroposterior,
            lung_distance=0.19 * build + exam.normal(0, 0.006),
            lung_width=0.155 * build * patient.normal(1, 0.06),
            heart=0.135 * build * patient.normal(1, 0.09) * (1.12 if anteroposterior else 1),
            ribs=patient.uniform(0.058, 0.074),
            slope=patient.normal(0.35, 0.1),
        )

    def with_larger_heart(self, factor: float) -> Anatomy:
        """Return the same patient with a wider heart."""
        return replace(self, heart=self.heart * factor)

    def opacity(self, rng: np.random.Generator, side: int, grey: float) -> Opacity:
        """Draw an opacity in the lung on one side of the frame (-1 left, 1 right), mostly low."""
        down = 0.25 + 0.55 * rng.beta(2.2, 1.6)
        if side < 0:
            outwards = rng.uniform(-0.3, 0.35)
        else:  # the heart covers the lower inner part
            outwards = rng.uniform(-0.1, 0.2) + 0.4 * max(0, down - 0.5)
        x = self.centre + side * (self.lung_distance + outwards * self.lung_width)
        y = self.top + (self.diaphragm - self.top) * down
        width, height = float(rng.uniform(0.035, 0.07)), float(rng.uniform(0.04, 0.09))
        return Opacity(float(x), float(y), width, height, grey)


def radiograph(
    rng: np.random.Generator,
    anatomy: Anatomy,
    size: int,
    *,
    opacities: tuple[Opacity, ...] = (),
    line: bool = False,
    nodule: bool = False,
) -> np.ndarray:
    """Draw a frontal chest X-ray.

    Args:
        rng: determines what varies from exam to exam: exposure, soft tissue, vessels, noise, lines.
        anatomy: the patient as posed.
        size: pixels a side.
        opacities: densities to draw into the lungs.
        line: draw a catheter from the neck to the heart.
        nodule: draw a small round density in a lung.

    Returns:
        uint8 grey, shape size,size; air is dark.
    """
    # A separate generator, so that the other parts do not depend on findings.
    findings = rng.spawn(1)[0]
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, :], axis[:, None]
    lungs = _lungs(x, y, anatomy)
    image = _body(x, y, anatomy) * (SOFT - AIR) + AIR
    coarse, fine = texture(rng, size, size, 5), texture(rng, size, size, 24)
    image += lungs * (LUNG - SOFT + 9 * coarse + 5 * fine)
    image += _densities(x, y, anatomy)
    image += 26 * _vessels(rng, size, anatomy) * lungs
    image += _bones(rng, size, anatomy) * sigmoid((anatomy.diaphragm + 0.05 - y) * 25)
    for opacity in opacities:
        inside = 0.35 + 0.65 * lungs  # an opacity fades at the edge of the lung
        grain = 1 + 0.3 * texture(findings, size, size, 16)
        image += _blob(x, y, opacity) * inside * grain * opacity.grey
    if line:
        image += 42 * _catheter(findings, size, anatomy)
    if nodule:
        spot = anatomy.opacity(findings, int(findings.choice([-1, 1])), 50)
        radius = findings.uniform(0.014, 0.022)
        image += sigmoid((radius - np.hypot(x - spot.x, y - spot.y)) * 400) * spot.grey
    return _expose(rng, image, y)


def _expose(rng: np.random.Generator, image: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Apply contrast, brightness, a vertical gradient and noise, and add the marker of the side."""
    size = len(image)
    contrast, shift = rng.normal(1, 0.08), rng.normal(0, 7)
    exposed = (image - 128) * contrast + 128 + shift + 14 * rng.normal() * (y - 0.5)
    exposed += 3.5 * rng.standard_normal((size, size), dtype=np.float32)
    marker = np.zeros((size, size), np.uint8)
    corner = round(0.9 * size), round(0.1 * size)
    cv2.putText(marker, "L", corner, cv2.FONT_HERSHEY_SIMPLEX, size / 400, 235, 1)
    return to_uint8(np.maximum(exposed, marker))


def _blob(x: np.ndarray, y: np.ndarray, opacity: Opacity) -> np.ndarray:
    across, down = (x - opacity.x) / opacity.width, (y - opacity.y) / opacity.height
    return np.exp(-(across**2 + down**2) / 2)


def _body(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Return the body's mask, 0 to 1: neck, sloping shoulders, trunk."""
    aside = np.abs(x - anatomy.centre)
    shoulder = anatomy.top - 0.1 + anatomy.slope * np.maximum(aside - 0.1, 0)
    half_width = anatomy.lung_distance + 1.45 * anatomy.lung_width
    trunk = sigmoid((y - shoulder) * 60) * sigmoid((half_width - aside) * 60)
    neck = sigmoid((0.09 - aside) * 60)
    return np.maximum(trunk, neck)


def _lungs(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Return the lungs' mask, 0 to 1: narrow at the top, cut off by the domes of the diaphragm."""
    mask = np.zeros((y.size, x.size), np.float32)
    height = anatomy.diaphragm - anatomy.top
    down = (y - anatomy.top) / height
    half = anatomy.lung_width * np.sqrt(np.clip(1 - (1 - np.clip(down, 0, 1)) ** 2.4, 0, 1))
    for side in (-1, 1):
        centre = anatomy.centre + side * anatomy.lung_distance
        lean = centre - side * 0.25 * anatomy.lung_width * (1 - down)
        floor = anatomy.diaphragm + 0.02 * (side < 0) * -1 + 1.6 * (x - centre) ** 2
        sides = sigmoid((half - np.abs(x - lean)) * 90)
        lung = sides * sigmoid((y - anatomy.top) * 90) * sigmoid((floor - y) * 90)
        mask = np.maximum(mask, lung)
    return mask


def _densities(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Return the grey levels that heart, great vessels, spine and abdomen add."""
    across = x - anatomy.centre
    heart_y = anatomy.diaphragm - 0.75 * anatomy.heart
    tilt = (across - 0.35 * anatomy.heart) + 0.25 * (y - heart_y)
    inside = 1 - np.hypot(tilt / anatomy.heart, (y - heart_y) / (0.95 * anatomy.heart))
    above = sigmoid((anatomy.diaphragm + 0.04 - y) * 60)
    heart = sigmoid(inside * anatomy.heart * 110) * (SOFT - LUNG - 6) * above
    mediastinum = np.exp(-((across / 0.055) ** 2) / 2) * 46 * sigmoid((y - anatomy.top + 0.06) * 40)
    hila = 22 * sum(
        np.exp(-(((across - side * 0.085) / 0.03) ** 2 + ((y - 0.43) / 0.055) ** 2) / 2)
        for side in (-1, 1)
    )
    abdomen = sigmoid((y - anatomy.diaphragm - 0.03) * 30) * (DENSE - SOFT) * 0.6
    return (np.maximum(heart * above, mediastinum) + hila + abdomen).astype(np.float32)


def _bones(rng: np.random.Generator, size: int, anatomy: Anatomy) -> np.ndarray:
    """Return the grey levels that ribs (nine a side, back and front part) and clavicles add."""
    canvas = np.zeros((size, size), np.float32)
    reach = anatomy.lung_distance + 1.1 * anatomy.lung_width
    share = np.linspace(0, 1, 24)
    thickness = max(1, round(0.017 * size))
    for side in (-1, 1):
        for rib in range(9):
            start = anatomy.top - 0.02 + rib * anatomy.ribs
            spread = side * reach * min(1, 0.55 + 0.12 * rib)
            back_x = anatomy.centre + spread * share
            back = np.stack([back_x, start + 0.09 * share**2 - 0.03 * share], 1)
            front_x = anatomy.centre + spread * (1 - 0.55 * share)
            front = np.stack([front_x, start + 0.06 + 0.13 * share], 1)
            canvas += 17 * polyline(size, back, thickness) + 10 * polyline(size, front, thickness)
        clavicle = np.array([[0.03, 0.02], [0.12, -0.015], [0.26, -0.05]])
        clavicle = clavicle + rng.normal(0, 0.006, (3, 2))
        clavicle = clavicle * (side, 1) + (anatomy.centre, anatomy.top + 0.02)
        canvas += 24 * polyline(size, clavicle, 2 * thickness)
    return cv2.GaussianBlur(canvas, (0, 0), size / 180)


def _vessels(rng: np.random.Generator, size: int, anatomy: Anatomy) -> np.ndarray:
    """Return the vessels' mask, 0 to 1: they leave the hila and grow thinner."""
    canvas = np.zeros((size, size), np.uint8)
    for side in (-1, 1):
        for angle in np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.1, 9):
            turns = np.full(10, angle) + np.cumsum(rng.normal(0, 0.07, 10)) * 0.5
            angles = np.cumsum(turns) / np.arange(1, 11)
            path = np.cumsum(0.026 * np.stack([side * np.cos(angles), np.sin(angles)], 1), 0)
            points = np.array([anatomy.centre + side * 0.075, 0.43]) + np.vstack([[0, 0], path])
            pixels = fixed_point(points, size).tolist()
            for step in range(10):
                begin, end, grey = pixels[step], pixels[step + 1], 230 - 18 * step
                thickness = max(1, round(size * 0.012 * (1 - step / 10)))
                cv2.line(canvas, begin, end, grey, thickness, cv2.LINE_AA, FRACTION_BITS)
    return cv2.GaussianBlur(canvas, (0, 0), size / 200).astype(np.float32) / 255


def _catheter(rng: np.random.Generator, size: int, anatomy: Anatomy) -> np.ndarray:
    """Return the mask of a thin line from neck or shoulder to the top of the heart, 0 to 1."""
    side = rng.choice([-1, 1])
    start = np.array([anatomy.centre + side * rng.uniform(0.05, 0.2), rng.uniform(0.0, 0.1)])
    bend = np.array([anatomy.centre - 0.05, anatomy.top + rng.uniform(0.05, 0.12)])
    end = np.array([anatomy.centre - 0.05 + rng.normal(0, 0.01), rng.uniform(0.45, 0.56)])
    share = np.linspace(0, 1, 32)[:, None]
    curve = (1 - share) ** 2 * start + 2 * share * (1 - share) * bend + share**2 * end
    return polyline(size, curve, max(1, size // 200))
