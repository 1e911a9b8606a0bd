"""Figures of a study's data: examples after preprocessing, and what the audit found."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.data.shards import Shards
from medscale.report import style
from medscale.report.names import BLUE, GREY, ORANGE, SPLITS_IN_WORDS, VERMILION

ACROSS = 6
SPLIT_LOOK = {"train": (BLUE, ""), "val": (ORANGE, "////"), "test": (VERMILION, "....")}


@style.styled
def samples(shards: Shards) -> Figure:
    """Images as the network sees them before augmentation: with few classes a row a class, else one image a class."""
    classes = shards.classes
    each = ACROSS if len(classes) <= ACROSS else 1
    places = [_first(shards, code, each) for code in range(len(classes))]
    rows, columns = (len(classes), ACROSS) if each > 1 else (-(-len(classes) // ACROSS), ACROSS)
    figure = style.new(rows * (1.12 if each > 1 else 1.3) + 0.1)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
    for code, name in enumerate(classes):
        for number, image in enumerate(shards.gather(places[code])):
            axes = grid[code, number] if each > 1 else grid[code // ACROSS, code % ACROSS]
            axes.imshow(
                image.squeeze(),
                cmap="gray" if image.shape[2] == 1 else None,
                interpolation="nearest",
            )
        if each > 1:
            grid[code, 0].set_ylabel(style.wrapped(name, 18), size=7)
        else:
            grid[code // ACROSS, code % ACROSS].set_title(style.shorten(name, 18), size=6.5)
    return figure


@style.styled
def audit(found: dict[str, int], counts: pd.DataFrame) -> Figure:
    """How many files were found, used and left out by reason; and the used images by class and split.

    Args:
        found: files by what became of them, in the order to draw: found, used, then each reason.
        counts: images, a row a class and a column a split.
    """
    rows = max(len(found), len(counts))
    figure = style.new(0.9 + 0.22 * max(rows, 4))
    left, right = figure.subplots(1, 2)
    places = np.arange(len(found))[::-1]
    colours = [GREY, BLUE, *[VERMILION] * (len(found) - 2)]
    left.barh(places, list(found.values()), color=colours, height=0.65)
    _numbers(left, places, list(found.values()))
    left.set_yticks(places, [style.shorten(name, 30) for name in found])
    left.set(
        xlabel="files",
        xlim=(0, 1.2 * max(found.values())),
        ylim=(len(found) - rows - 0.6, len(found) - 0.4),
    )
    places, start = np.arange(len(counts))[::-1], np.zeros(len(counts))
    for split, (colour, hatch) in SPLIT_LOOK.items():
        width = counts[split].to_numpy(float)
        words = SPLITS_IN_WORDS[split]
        right.barh(
            places,
            width,
            left=start,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=words,
            height=0.65,
        )
        start += width
    _numbers(right, places, start)
    right.set_yticks(places, [style.shorten(str(name), 24) for name in counts.index])
    right.set(
        xlabel="images used",
        xlim=(0, 1.2 * start.max()),
        ylim=(len(counts) - rows - 0.6, len(counts) - 0.4),
    )
    right.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, columnspacing=1.2, handlelength=1.4
    )
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    return figure


def _first(shards: Shards, code: int, count: int) -> np.ndarray:
    """Positions of the first training images of a class, by id; of any split where training has none."""
    of_class = shards.labels == code
    training = np.flatnonzero(of_class & (shards.rows["split"].to_numpy() == "train"))
    places = training if len(training) else np.flatnonzero(of_class)
    return places[np.argsort(shards.ids[places], kind="stable")][:count]


def _numbers(axes: Axes, places: np.ndarray, values: np.ndarray | list[int]) -> None:
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{value:,.0f}", (value, place), (3, 0), textcoords="offset points", va="center", size=7
        )
