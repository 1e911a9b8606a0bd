"""Figures of a study's data: examples after preprocessing, and the counts of the audit."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.data.shards import Shards
from medscale.report import style
from medscale.report.names import BLUE, GREY, ORANGE, SPLITS_IN_WORDS, VERMILION

COLUMNS = 6
SPLIT_LOOK = {"train": (BLUE, ""), "val": (ORANGE, "////"), "test": (VERMILION, "....")}


def samples(shards: Shards) -> Figure:
    """Draw images as the network sees them before augmentation.

    Few classes have a row each, many classes one image each.
    """
    classes = shards.classes
    few = len(classes) <= COLUMNS
    rows = len(classes) if few else -(-len(classes) // COLUMNS)
    # Few classes have a half of the paper's width, beside the tables of the data.
    figure = style.new(rows * 0.6 + 0.1, 3.1) if few else style.new(rows * 1.4 + 0.1)
    panels = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
    for code, name in enumerate(classes):
        row = panels[code] if few else [panels[code // COLUMNS, code % COLUMNS]]
        images = shards.gather(_first(shards, code, len(row)))
        for axes, image in zip(row, images, strict=False):
            colours = "gray" if image.shape[2] == 1 else None
            axes.imshow(image.squeeze(), cmap=colours, interpolation="nearest")
        if few:
            row[0].set_title(" ", size=6)  # room for the name, which is wider than the image
            place: dict[str, Any] = {"transform": row[0].transAxes, "va": "bottom", "size": 6}
            row[0].text(0, 1.04, style.short_class(name, 60), **place).set_in_layout(False)
        else:
            row[0].set_title(style.broken(style.short_class(name, 60), 18), size=6)
    return figure


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


def _first(shards: Shards, code: int, count: int) -> np.ndarray:
    """Return positions of the first training images of a class, by id.

    A class without training images shows those of any split.
    """
    of_class = shards.labels == code
    training = np.flatnonzero(of_class & (shards.rows["split"].to_numpy() == "train"))
    positions = training if len(training) else np.flatnonzero(of_class)
    return positions[np.argsort(shards.ids[positions], kind="stable")][:count]
