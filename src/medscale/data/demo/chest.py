"""Draws one synthetic frontal chest X-ray: body, lungs, heart, bones, vessels, findings; no model of a patient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from medscale.data.demo.brush import sigmoid, texture

AIR, SOFT, LUNG, DENSE = 14.0, 150.0, 62.0, 205.0  # grey of what the ray met; white is 255
BOX_SIGMAS = 1.5  # half a side of an opacity's box in standard deviations of its density


class Opacity(NamedTuple):
    """A soft density in a lung: centre and standard deviations as shares of the frame's side, and its grey."""

    x: float
    y: float
    wide: float
    high: float
    grey: float

    def box(self, size: int) -> list[float]:
        """Its bounding box in a frame of ``size`` pixels a side: x, y of the top-left corner, width, height."""
        left, top = (
            max(0.0, v) for v in (self.x - BOX_SIGMAS * self.wide, self.y - BOX_SIGMAS * self.high)
        )
        right, bottom = (
            min(1.0, v) for v in (self.x + BOX_SIGMAS * self.wide, self.y + BOX_SIGMAS * self.high)
        )
        corners = [round(v * size) for v in (left, top, right, bottom)]
        return [
            float(v)
            for v in (corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1])
        ]


@dataclass(frozen=True)
class Anatomy:
    """What an exam shows of a patient; lengths are shares of the frame's side."""

    centre: float
    top: float
    diaphragm: float
    apart: float
    width: float
    heart: float
    ribs: float
    slope: float

    @classmethod
    def draw(
        cls, patient: np.random.Generator, exam: np.random.Generator, anteroposterior: bool
    ) -> Anatomy:
        """A patient as seen in one exam: posture and breath vary; an AP exam, taken lying, shows a larger heart."""
        build, breath = patient.normal(1, 0.05), exam.normal(0, 0.02)
        return cls(
            centre=0.5 + exam.normal(0, 0.02),
            top=0.16 + exam.normal(0, 0.025),
            diaphragm=0.76 + patient.normal(0, 0.02) + breath - 0.05 * anteroposterior,
            apart=0.19 * build + exam.normal(0, 0.006),
            width=0.155 * build * patient.normal(1, 0.06),
            heart=0.135 * build * patient.normal(1, 0.09) * (1.12 if anteroposterior else 1),
            ribs=patient.uniform(0.058, 0.074),
            slope=patient.normal(0.35, 0.1),
        )

    def with_larger_heart(self, factor: float) -> Anatomy:
        """The same patient with a heart wider by a factor."""
        return replace(self, heart=self.heart * factor)

    def opacity(self, rng: np.random.Generator, side: int, grey: float) -> Opacity:
        """An opacity somewhere in the lung on one side of the frame (-1 left, 1 right), more often low in it."""
        down = 0.25 + 0.55 * rng.beta(2.2, 1.6)
        outwards = (
            rng.uniform(-0.3, 0.35)
            if side < 0
            else rng.uniform(-0.1, 0.2) + 0.4 * max(0, down - 0.5)
        )  # heart
        x = self.centre + side * (self.apart + outwards * self.width)
        y = self.top + (self.diaphragm - self.top) * down
        return Opacity(
            float(x),
            float(y),
            float(rng.uniform(0.035, 0.07)),
            float(rng.uniform(0.04, 0.09)),
            grey,
        )


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
        rng: decides what varies from exam to exam: exposure, soft tissue, vessels, noise, courses of lines.
        anatomy: the patient as posed.
        size: pixels a side.
        opacities: densities to draw into the lungs.
        line: a catheter from the neck to the heart.
        nodule: a small round density in a lung.

    Returns:
        uint8 grey, shape size,size; air is dark.
    """
    findings = rng.spawn(1)[0]  # what is drawn without findings does not depend on them
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, :], axis[:, None]
    lungs = _lungs(x, y, anatomy)
    image = _body(x, y, anatomy) * (SOFT - AIR) + AIR
    image += lungs * (
        LUNG - SOFT + 9 * texture(rng, size, size, 5) + 5 * texture(rng, size, size, 24)
    )
    image += _densities(x, y, anatomy)
    image += 26 * _vessels(rng, size, anatomy) * lungs
    image += _bones(rng, size, anatomy) * sigmoid((anatomy.diaphragm + 0.05 - y) * 25)
    for opacity in opacities:
        inside = 0.35 + 0.65 * lungs  # it shades off at the lung's edge
        image += (
            _blob(x, y, opacity)
            * inside
            * (1 + 0.3 * texture(findings, size, size, 16))
            * opacity.grey
        )
    if line:
        image += 42 * _catheter(findings, size, anatomy)
    if nodule:
        spot = anatomy.opacity(findings, int(findings.choice([-1, 1])), 50)
        image += (
            sigmoid((findings.uniform(0.014, 0.022) - np.hypot(x - spot.x, y - spot.y)) * 400)
            * spot.grey
        )
    shown = (
        (image - 128) * rng.normal(1, 0.08) + 128 + rng.normal(0, 7) + 14 * rng.normal() * (y - 0.5)
    )
    shown += 3.5 * rng.standard_normal((size, size), dtype=np.float32)
    marker = np.zeros((size, size), np.uint8)
    cv2.putText(
        marker,
        "L",
        (round(0.9 * size), round(0.1 * size)),
        cv2.FONT_HERSHEY_SIMPLEX,
        size / 400,
        235,
        1,
    )
    return np.clip(np.maximum(shown, marker) + 0.5, 0, 255).astype(np.uint8)


def _blob(x: np.ndarray, y: np.ndarray, opacity: Opacity) -> np.ndarray:
    return np.exp(
        -(((x - opacity.x) / opacity.wide) ** 2 + ((y - opacity.y) / opacity.high) ** 2) / 2
    )


def _body(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Where the body is, 0 to 1: neck, shoulders that slope to the sides, trunk."""
    away = np.abs(x - anatomy.centre)
    shoulder = anatomy.top - 0.1 + anatomy.slope * np.maximum(away - 0.1, 0)
    trunk = sigmoid((y - shoulder) * 60) * sigmoid(
        (anatomy.apart + 1.45 * anatomy.width - away) * 60
    )
    neck = sigmoid((0.09 - away) * 60)
    return np.maximum(trunk, neck)


def _lungs(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Where the lungs are, 0 to 1: two fields, narrow above, cut off below by the domes of the diaphragm."""
    field = np.zeros((y.size, x.size), np.float32)
    tall = anatomy.diaphragm - anatomy.top
    for side in (-1, 1):
        centre = anatomy.centre + side * anatomy.apart
        down = (y - anatomy.top) / tall
        half = anatomy.width * np.sqrt(np.clip(1 - (1 - np.clip(down, 0, 1)) ** 2.4, 0, 1))
        lean = centre - side * 0.25 * anatomy.width * (1 - down)
        floor = anatomy.diaphragm + 0.02 * (side < 0) * -1 + 1.6 * (x - centre) ** 2
        edge = (
            sigmoid((half - np.abs(x - lean)) * 90)
            * sigmoid((y - anatomy.top) * 90)
            * sigmoid((floor - y) * 90)
        )
        field = np.maximum(field, edge)
    return field


def _densities(x: np.ndarray, y: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """What heart, great vessels, spine and abdomen add."""
    across = x - anatomy.centre
    heart_y = anatomy.diaphragm - 0.75 * anatomy.heart
    tilt = (across - 0.35 * anatomy.heart) + 0.25 * (y - heart_y)
    inside = 1 - np.hypot(tilt / anatomy.heart, (y - heart_y) / (0.95 * anatomy.heart))
    heart = (
        sigmoid(inside * anatomy.heart * 110)
        * (SOFT - LUNG - 6)
        * sigmoid((anatomy.diaphragm + 0.04 - y) * 60)
    )
    mediastinum = np.exp(-((across / 0.055) ** 2) / 2) * 46 * sigmoid((y - anatomy.top + 0.06) * 40)
    hila = (
        sum(
            np.exp(-(((across - s * 0.085) / 0.03) ** 2 + ((y - 0.43) / 0.055) ** 2) / 2)
            for s in (-1, 1)
        )
        * 22
    )
    below = sigmoid((y - anatomy.diaphragm - 0.03) * 30) * (DENSE - SOFT) * 0.6
    return (
        np.maximum(heart * sigmoid((anatomy.diaphragm + 0.04 - y) * 60), mediastinum) + hila + below
    ).astype(np.float32)


def _bones(rng: np.random.Generator, size: int, anatomy: Anatomy) -> np.ndarray:
    """What ribs (nine a side, back and front part) and collar bones add."""
    canvas = np.zeros((size, size), np.float32)
    reach = anatomy.apart + 1.1 * anatomy.width
    share = np.linspace(0, 1, 24)
    thick = max(1, round(0.017 * size))
    for side in (-1, 1):
        for rib in range(9):
            start = anatomy.top - 0.02 + rib * anatomy.ribs
            spread = side * reach * min(1, 0.55 + 0.12 * rib)
            back = np.stack(
                [anatomy.centre + spread * share, start + 0.09 * share**2 - 0.03 * share], 1
            )
            front = np.stack(
                [anatomy.centre + spread * (1 - 0.55 * share), start + 0.06 + 0.13 * share], 1
            )
            canvas += 17 * _curve(size, back, thick) + 10 * _curve(size, front, thick)
        collar = np.array([[0.03, 0.02], [0.12, -0.015], [0.26, -0.05]]) + rng.normal(
            0, 0.006, (3, 2)
        )
        canvas += 24 * _curve(
            size, collar * (side, 1) + (anatomy.centre, anatomy.top + 0.02), 2 * thick
        )
    return cv2.GaussianBlur(canvas, (0, 0), size / 180)


def _curve(size: int, points: np.ndarray, thick: int) -> np.ndarray:
    """A line through points (x, y in shares of the side), 0 to 1; float32, shape size,size."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.polylines(
        canvas, [np.rint(points * size * 16).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4
    )
    return canvas.astype(np.float32) / 255


def _vessels(rng: np.random.Generator, size: int, anatomy: Anatomy) -> np.ndarray:
    """Vessels that leave the hila and grow thinner, 0 to 1."""
    canvas = np.zeros((size, size), np.uint8)
    for side in (-1, 1):
        for angle in np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.1, 9):
            steps = np.cumsum(
                np.full(10, angle) + np.cumsum(rng.normal(0, 0.07, 10)) * 0.5
            ) / np.arange(1, 11)
            path = np.cumsum(0.026 * np.stack([side * np.cos(steps), np.sin(steps)], 1), 0)
            points = np.array([anatomy.centre + side * 0.075, 0.43]) + np.vstack([[0, 0], path])
            pixels = np.rint(points * size * 16).astype(int).tolist()
            for step in range(10):
                thick = max(1, round(size * 0.012 * (1 - step / 10)))
                cv2.line(
                    canvas, pixels[step], pixels[step + 1], 230 - 18 * step, thick, cv2.LINE_AA, 4
                )
    return cv2.GaussianBlur(canvas, (0, 0), size / 200).astype(np.float32) / 255


def _catheter(rng: np.random.Generator, size: int, anatomy: Anatomy) -> np.ndarray:
    """A thin line from the neck or a shoulder to the upper edge of the heart, 0 to 1."""
    side = rng.choice([-1, 1])
    start = np.array([anatomy.centre + side * rng.uniform(0.05, 0.2), rng.uniform(0.0, 0.1)])
    bend = np.array([anatomy.centre - 0.05, anatomy.top + rng.uniform(0.05, 0.12)])
    end = np.array([anatomy.centre - 0.05 + rng.normal(0, 0.01), rng.uniform(0.45, 0.56)])
    share = np.linspace(0, 1, 32)[:, None]
    curve = (1 - share) ** 2 * start + 2 * share * (1 - share) * bend + share**2 * end
    canvas = np.zeros((size, size), np.uint8)
    cv2.polylines(
        canvas,
        [np.rint(curve * size * 16).astype(np.int32)],
        False,
        255,
        max(1, size // 200),
        cv2.LINE_AA,
        4,
    )
    return canvas.astype(np.float32) / 255
