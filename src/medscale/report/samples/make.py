"""The chapter samples: images of a study after preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medscale.data.shards import Shards
from medscale.report import style
from medscale.report.marks import Marks
from medscale.report.writer import Pages

COLUMNS = 6


def make(study: str, *, shards: str, marks: Marks) -> Pages:
    """Return the chapter's figure."""
    figure = samples(Shards.open(Path(shards).parent))
    return Pages(marks=[marks], figures={"samples": figure})


def samples(shards: Shards) -> Figure:
    """Draw images as the network sees them before augmentation.

    Few classes have a row each, many classes one image each.
    """
    classes = shards.classes
    few = len(classes) <= COLUMNS
    rows = len(classes) if few else -(-len(classes) // COLUMNS)
    # Few classes have half of the paper's width; the tables of the data have the other half.
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


def _first(shards: Shards, code: int, count: int) -> np.ndarray:
    """Return positions of the first training images of a class, by id.

    A class without training images shows those of any split.
    """
    of_class = shards.labels == code
    training = np.flatnonzero(of_class & (shards.rows["split"].to_numpy() == "train"))
    positions = training if len(training) else np.flatnonzero(of_class)
    return positions[np.argsort(shards.ids[positions], kind="stable")][:count]
