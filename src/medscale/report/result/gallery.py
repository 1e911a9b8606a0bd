"""Grad-CAM of a run: test images predicted right and wrong, and the parts that decided it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.base.errors import MedscaleError
from medscale.base.files import read_table
from medscale.evaluate.replicates import Gallery
from medscale.report import style
from medscale.report.names import label
from medscale.report.result.reading import records

HEAT = "inferno"  # colours that grow lighter in grey, too
LINE = 20  # letters of a class name above an image of a small figure
SOME = 3  # right and wrong cases each in a small figure
SHARE = 0.45  # of the heat map in the overlaid picture


def read_gallery(folder: Path, summary: dict[str, Any]) -> Gallery:
    """Read the gallery of a result folder.

    Raises MedscaleError when a file of it is missing or damaged.
    """
    try:
        text = {"true": str, "predicted": str}
        remedy = f"delete {folder} and run again"
        cases = read_table(folder / "gradcam.csv", remedy, dtype=text, keep_default_na=False)
        heat, images = (
            np.load(folder / f"gradcam_{name}.npy", allow_pickle=False)
            for name in ("heat", "images")
        )
    except (OSError, ValueError) as error:
        raise MedscaleError(
            f"{folder} has no whole Grad-CAM ({error}); delete it and run again"
        ) from None
    return Gallery(cases, heat, images, str((summary["gradcam"] or {}).get("why_none", "")))


def some_cases(gallery: Gallery) -> Figure:
    """Draw the first right and wrong cases of a gallery side by side, in two rows.

    An image stands above the same with its heat map.
    """
    figure = style.new(2.45)
    if gallery.reason:
        style.empty(figure.subplots(), gallery.reason)
        return figure
    right = gallery.cases["right"].to_numpy(bool)
    sides = [np.flatnonzero(chosen)[:SOME] for chosen in (right, ~right)]
    panels, cases = figure.subplots(2, 2 * SOME), records(gallery.cases)
    for axes in panels.flat:
        axes.set_axis_off()
    for side, (numbers, words) in enumerate(zip(sides, ("right", "wrong"), strict=True)):
        first = panels[0, side * SOME]
        if not len(numbers):
            first.text(0, 0.5, f"no image is {words}", size=7, transform=first.transAxes)
        for place, number in enumerate(numbers):
            above, below = panels[:, side * SOME + place]
            image = gallery.images[number]
            above.imshow(image, interpolation="nearest")
            below.imshow(overlay(image, gallery.heat[number]), interpolation="nearest")
            above.set_title(_caption(cases[number], _whole_name, ","), size=5.5)
    return figure


def of_run(gallery: Gallery, summary: dict[str, Any]) -> Figure:
    """Draw a run's gallery.

    Right cases are above wrong ones; below each image is the same with its heat map.
    """
    right = gallery.cases["right"].to_numpy(bool)
    rows = [np.flatnonzero(right), np.flatnonzero(~right)]
    columns = max(1, *map(len, rows))
    figure = style.new(1.1 + 4.15 * min(1.15, 6.3 / columns))
    figure.suptitle(f"{label(summary['run']['name'])}: test images", size=9)
    if gallery.reason:
        style.empty(figure.subplots(), gallery.reason)
        return figure
    panels, cases = figure.subplots(4, columns, squeeze=False), records(gallery.cases)
    short = partial(style.short_class, length=18 if columns > 4 else 26)
    for band, (numbers, words) in enumerate(zip(rows, ("right", "wrong"), strict=True)):
        above, below = panels[2 * band], panels[2 * band + 1]
        for axes in (*above[len(numbers) :], *below[len(numbers) :]):
            axes.set_axis_off()
        for axes, heat_axes, number in zip(above, below, numbers, strict=False):
            image, heat = gallery.images[number], gallery.heat[number]
            axes.imshow(image, interpolation="nearest")
            heat_axes.imshow(overlay(image, heat), interpolation="nearest")
            axes.set_title(_caption(cases[number], short), size=5.5)
            _bare(axes)
            _bare(heat_axes)
        if len(numbers):
            above[0].set_ylabel(words)
            below[0].set_ylabel("Grad-CAM")
        else:
            above[0].text(0, 0.5, f"no image is {words}", size=7, transform=above[0].transAxes)
    return figure


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heat map over an image in grey.

    Args:
        image: uint8, shape H,W,3.
        heat: in [0, 1], shape h,w; it is brought to the image's size.

    Returns:
        Floats in [0, 1], shape H,W,3.
    """
    height, width = image.shape[:2]
    large = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grey = image.mean(axis=2, keepdims=True) / 255
    colours = np.asarray(colormaps[HEAT](large.clip(0, 1)))[..., :3]
    return np.asarray((1 - SHARE) * grey + SHARE * colours)


def _caption(case: dict[str, Any], name: Callable[[str], str], mark: str = "") -> str:
    """Return true and predicted class with the probability; ``mark`` comes after the true one."""
    true, predicted = (name(str(case[key])) for key in ("true", "predicted"))
    answer = "" if case["right"] else f"{mark}\ntaken for\n{predicted}"
    return f"{true}{answer}\n({100 * float(case['probability']):.0f} %)"


def _whole_name(text: str) -> str:
    return style.broken(style.short_class(text, 60), LINE)


def _bare(axes: Axes) -> None:
    style.bare(axes)
    axes.spines[:].set_visible(False)
