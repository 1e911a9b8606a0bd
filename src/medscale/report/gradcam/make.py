"""The chapter gradcam: which parts of an image speak for the predicted class."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from medscale.base.files import read_json
from medscale.evaluate.replicates import Gallery
from medscale.report.marks import marks_of
from medscale.report.result.gallery import SOME, read_gallery, some_cases
from medscale.report.writer import Pages


def make(study: str, *, result: str) -> Pages:
    """Return the chapter's figure from the result folder of the baseline.

    Raises MedscaleError when the folder has no Grad-CAM.
    """
    summary = read_json(Path(result) / "summary.json")
    gallery = read_gallery(Path(result), summary)
    figure = some_cases(gallery)
    if not gallery.reason:
        mark_empty(figure, gallery)
    return Pages(marks=[marks_of(summary)], figures={"gradcam": figure})


def mark_empty(figure: Figure, gallery: Gallery) -> None:
    """Say in a figure of ``some_cases`` which heat maps are empty, and how many.

    A map is empty where no area of the image raises the score of the predicted class.
    """
    is_right = gallery.cases["right"].to_numpy(bool)
    # The lower axes show heat maps: first of correctly, then of wrongly classified images.
    lower_axes = figure.axes[2 * SOME :]
    numbers, empty = [], 0
    for half, is_shown in enumerate((is_right, ~is_right)):
        numbers += [
            (half * SOME + column, n) for column, n in enumerate(np.flatnonzero(is_shown)[:SOME])
        ]
    for position, number in numbers:
        if not gallery.heat[number].any():
            empty += 1
            axes = lower_axes[position]
            axes.text(0.5, -0.04, "empty", size=6, ha="center", va="top", transform=axes.transAxes)
    if empty:
        words = (
            f"no area raises the score of the predicted class in {empty} of {len(numbers)} images"
        )
        figure.supxlabel(words, size=7)
