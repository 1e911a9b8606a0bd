"""Figure of the audit: numbers of files that a study uses and leaves out, by reason."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.report import style
from medscale.report.names import BLUE, GREY, ORANGE, SPLITS_IN_WORDS, VERMILION

SPLIT_LOOK = {"train": (BLUE, ""), "val": (ORANGE, "////"), "test": (VERMILION, "||||")}


def audit(fates: dict[str, int], counts: pd.DataFrame) -> Figure:
    """Draw how many files were found, used and left out, and the images by class and split.

    Args:
        fates: number of files found, used and left out for each reason, in this order.
        counts: images, a row for each class and a column for each split.
    """
    rows = max(len(fates), len(counts))
    figure = style.new(0.9 + 0.22 * max(rows, 4))
    left, right = figure.subplots(1, 2)
    heights, files = np.arange(len(fates))[::-1], list(fates.values())
    left.barh(heights, files, color=[GREY, BLUE, *[VERMILION] * (len(fates) - 2)], height=0.65)
    _finish(left, rows, heights, files, [style.shorten(name, 30) for name in fates])
    left.set(xlabel="files")
    heights, start = np.arange(len(counts))[::-1], np.zeros(len(counts))
    for split, (colour, hatch) in SPLIT_LOOK.items():
        width, words = counts[split].to_numpy(float), SPLITS_IN_WORDS[split]
        part: dict[str, Any] = {"color": colour, "hatch": hatch, "ec": "white", "label": words}
        right.barh(heights, width, 0.65, start, **part)
        start += width
    _finish(
        right, rows, heights, start, [style.short_class(str(name), 24) for name in counts.index]
    )
    right.set(xlabel="images used")
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    right.legend(**place, ncols=3, columnspacing=1.2, handlelength=1.4)
    return figure


def _finish(axes: Axes, rows: int, heights: np.ndarray, values: Any, names: list[str]) -> None:
    """Print the values at the bars' ends; both panels have ``rows`` rows, so bars are as thick."""
    for height, value in zip(heights, values, strict=True):
        place: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{value:,.0f}", (value, height), **place, size=7)
    axes.set_yticks(heights, names)
    count = len(names)
    axes.set(xlim=(0, 1.2 * max(values)), ylim=(count - rows - 0.6, count - 0.4))
    axes.grid(visible=False, axis="y")
