"""Figures of Grad-CAM: test images that a run has right and wrong, and where its network looked."""

from __future__ import annotations

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.evaluate.replicates import Gallery
from medscale.report import style
from medscale.report.result.reading import records

HEAT, SHARE = (
    "inferno",
    0.45,
)  # colours that grow lighter in grey too, and their share of the picture


@style.styled
def gallery(found: Gallery, title: str) -> Figure:
    """Right cases above, wrong ones below: each image and, under it, the same with its heat map."""
    right = found.cases["right"].to_numpy(bool)
    rows = [np.flatnonzero(right == wanted) for wanted in (True, False)]
    columns = max(1, *map(len, rows))
    figure = style.new(1.1 + 4.15 * min(1.15, 6.3 / columns))
    figure.suptitle(title, size=9)
    if found.why:
        style.empty(figure.subplots(), found.why)
        return figure
    grid = figure.subplots(4, columns, squeeze=False)
    cases = records(found.cases)
    for band, (numbers, words) in enumerate(zip(rows, ("right", "wrong"), strict=True)):
        above, below = grid[2 * band], grid[2 * band + 1]
        for axes in (*above[len(numbers) :], *below[len(numbers) :]):
            axes.set_axis_off()
        for image, heat, number in zip(above, below, numbers, strict=False):
            case = cases[number]
            image.imshow(found.images[number], interpolation="nearest")
            heat.imshow(overlay(found.images[number], found.heat[number]), interpolation="nearest")
            image.set_title(_caption(case, columns), size=5.5)
            _bare(image)
            _bare(heat)
        if len(numbers):
            above[0].set_ylabel(words)
            below[0].set_ylabel("Grad-CAM")
        else:
            above[0].text(0, 0.5, f"no image is {words}", size=7, transform=above[0].transAxes)
    return figure


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image (uint8, H,W,3) in grey with a heat map ([0, 1], h,w) laid over it, as float in [0, 1], shape H,W,3."""
    height, width = image.shape[:2]
    large = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grey = image.mean(axis=2, keepdims=True) / 255
    colours = np.asarray(colormaps[HEAT](large.clip(0, 1)))[..., :3]
    return np.asarray((1 - SHARE) * grey + SHARE * colours)


def _caption(case: dict[str, object], columns: int) -> str:
    length = 18 if columns > 4 else 26
    true, predicted = (style.shorten(str(case[key]), length) for key in ("true", "predicted"))
    sure = f"({100 * float(str(case['probability'])):.0f} %)"
    return f"{true}\n{sure}" if case["right"] else f"{true}\ntaken for\n{predicted}\n{sure}"


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
