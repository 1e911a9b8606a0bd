"""Figures of a detection run: boxes on images, precision against recall."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from medscale.report import style
from medscale.report.names import BLUE, GREEN, ORANGE, label
from medscale.report.result.reading import records

COLUMNS = 4
KINDS: dict[str, tuple[str, Literal["-", "--"], str]] = {
    "true": (GREEN, "-", "true box"),
    "predicted": (ORANGE, "--", "predicted box and its confidence"),
}


def boxes(table: pd.DataFrame, images: Mapping[int, np.ndarray], run: str) -> Figure:
    """Draw test images with true and predicted boxes, a panel for each image.

    ``images``: uint8, shape H,W,3, by id.
    """
    ids = sorted(set(table["id"]))
    bands, columns = style.grid(len(ids), COLUMNS)
    figure = style.new(0.6 + 1.65 * bands)
    figure.suptitle(f"{label(run)}: test images", size=9)
    for number, (axes,) in zip(ids, style.panels(figure, len(ids), columns), strict=True):
        draw_boxes(axes, images[number], table[table["id"] == number])
    draw_legend(figure)
    return figure


def precision_recall(points: pd.DataFrame, chosen: Mapping[str, float | None], run: str) -> Figure:
    """Draw precision against recall at IoU 0.5: thick the mean over seeds, thin each seed.

    ``chosen``: recall and precision at the confidence chosen on the validation images.
    """
    figure = style.new(3.4, 3.6)
    axes = figure.subplots()
    for seed, part in points.groupby("seed"):
        mean: dict[str, Any] = {"linewidth": 1.4, "alpha": 1, "label": "mean over seeds"}
        options = mean if seed == "" else {"linewidth": 0.5, "alpha": 0.5}
        axes.plot(part["recall"], part["precision"], color=BLUE, **options)
    if chosen["recall"] is not None and chosen["precision"] is not None:
        point = chosen["recall"], chosen["precision"]
        axes.plot(*point, "o", color=ORANGE, label="at the chosen confidence")
    axes.set(xlabel="recall", ylabel="precision", title=label(run))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="upper right")
    return figure


def draw_boxes(axes: Axes, image: np.ndarray, table: pd.DataFrame) -> None:
    """Draw an image with its rows of boxes.csv."""
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest")
    style.bare(axes)
    for row in records(table[table["kind"] != ""]):
        colour, line, _ = KINDS[row["kind"]]
        corner = row["x"] * width - 0.5, row["y"] * height - 0.5
        sides = row["width"] * width, row["height"] * height
        axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linestyle=line))
        if row["kind"] == "predicted":
            options: dict[str, Any] = {"color": colour, "size": 6, "va": "bottom", "zorder": 4}
            confidence = axes.text(*corner, f"{row['confidence']:.2f}", **options)
            frame: dict[str, Any] = {"facecolor": "black", "edgecolor": "none", "alpha": 0.75}
            confidence.set_bbox(frame | {"pad": 0.6})


def draw_legend(figure: Any) -> None:
    """Explain the kinds of boxes below a figure or part of one."""
    handles = [
        Line2D([], [], color=colour, linestyle=line, label=words)
        for colour, line, words in KINDS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(KINDS))
