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
    right = gallery.cases["right"].to_numpy(bool)
    below = figure.axes[2 * SOME :]  # right cases, then wrong ones
    numbers, empty = [], 0
    for side, chosen in enumerate((right, ~right)):
        numbers += [
            (side * SOME + place, n) for place, n in enumerate(np.flatnonzero(chosen)[:SOME])
        ]
    for place, number in numbers:
        if not gallery.heat[number].any():
            empty += 1
            axes = below[place]
            axes.text(0.5, -0.04, "empty", size=6, ha="center", va="top", transform=axes.transAxes)
    if empty:
        words = (
            f"no area raises the score of the predicted class in {empty} of {len(numbers)} images"
        )
        figure.supxlabel(words, size=7)
