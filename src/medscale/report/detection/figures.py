"""Figures of detection: boxes drawn on images, precision against recall, and scores by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from medscale.evaluate.boxes import NAMES
from medscale.report import style
from medscale.report.names import BLUE, GREEN, GREY, ORANGE, label, look
from medscale.report.result.reading import records

ACROSS = 4
KINDS: dict[str, tuple[str, Literal["-", "--"], str]] = {
    "true": (GREEN, "-", "true box"),
    "predicted": (ORANGE, "--", "predicted box and its confidence"),
}


@style.styled
def boxes(drawn: pd.DataFrame, images: Mapping[int, np.ndarray], run: str) -> Figure:
    """Test images with true and predicted boxes, a panel an image.

    Args:
        drawn: boxes.csv.
        images: uint8, shape H,W,3, by id.
        run: its name.
    """
    ids = sorted(set(drawn["id"]))
    bands, columns = style.grid(len(ids), ACROSS)
    figure = style.new(0.6 + 1.65 * bands)
    figure.suptitle(f"{label(run)}: test images", size=9)
    for number, (axes,) in zip(ids, style.panels(figure, len(ids), columns), strict=True):
        draw_boxes(axes, images[number], drawn[drawn["id"] == number])
    figure.legend(handles=_legend(), loc="outside lower center", ncols=len(KINDS))
    return figure


@style.styled
def precision_recall(points: pd.DataFrame, chosen: Mapping[str, float | None], run: str) -> Figure:
    """Precision against recall of the test images at IoU 0.5: thick the mean over seeds, thin each seed.

    Args:
        points: pr.csv.
        chosen: recall and precision at the confidence that was chosen on the validation images.
        run: its name.
    """
    figure = style.new(3.4, 3.6)
    axes = figure.subplots()
    for seed, part in points.groupby("seed"):
        mean = seed == ""
        axes.plot(
            part["recall"],
            part["precision"],
            color=BLUE,
            linewidth=1.4 if mean else 0.5,
            alpha=1 if mean else 0.5,
            label="mean over seeds" if mean else None,
        )
    if chosen["recall"] is not None and chosen["precision"] is not None:
        axes.plot(
            chosen["recall"],
            chosen["precision"],
            "o",
            color=ORANGE,
            label="at the chosen confidence",
        )
    axes.set(
        xlabel="recall",
        ylabel="precision",
        title=label(run),
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
    )
    axes.legend(loc="upper right")
    return figure


@style.styled
def detection(
    results: Sequence[tuple[dict[str, Any], pd.DataFrame]], images: Mapping[int, np.ndarray]
) -> Figure:
    """A row of test images with the boxes of each run, and below them the scores by run with bootstrap intervals.

    Args:
        results: summary.json and boxes.csv of each run.
        images: uint8, shape H,W,3, by id.
    """
    ids = sorted(set.intersection(*[set(drawn["id"]) for _, drawn in results]))[:ACROSS]
    heights = [0.35 + 1.53 * len(results), 0.7 + 0.3 * len(results)]
    figure = style.new(sum(heights))
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    grid = above.subplots(len(results), ACROSS, squeeze=False)
    for row, (summary, drawn) in zip(grid, results, strict=True):
        for axes, number in zip(row, ids, strict=False):
            draw_boxes(axes, images[number], drawn[drawn["id"] == number])
        for axes in row[len(ids) :]:
            axes.set_axis_off()
        row[0].set_ylabel(label(summary["run"]["name"]).replace(", ", "\n"))
    above.legend(handles=_legend(), loc="outside lower center", ncols=len(KINDS))
    places = np.arange(len(results))[::-1]
    panels = below.subplots(1, len(NAMES), sharey=True)
    for axes, (metric, words) in zip(panels, NAMES.items(), strict=True):
        for place, (summary, _) in zip(places, results, strict=True):
            _interval(axes, summary, metric, int(place))
        axes.set(xlabel=words.replace(" (", "\n("), xlim=(-0.02, 1.04))
    panels[0].set_yticks(places, [label(summary["run"]["name"]) for summary, _ in results])
    panels[0].set_ylim(-0.6, len(results) - 0.4)
    return figure


def draw_boxes(axes: Axes, image: np.ndarray, drawn: pd.DataFrame) -> None:
    """Draw an image with its rows of boxes.csv."""
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for row in records(drawn[drawn["kind"] != ""]):
        colour, line, _ = KINDS[row["kind"]]
        corner = row["x"] * width - 0.5, row["y"] * height - 0.5
        sides = row["width"] * width, row["height"] * height
        axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linestyle=line))
        if row["kind"] == "predicted":
            said = axes.text(
                *corner, f"{row['confidence']:.2f}", color=colour, size=6, va="bottom", zorder=4
            )
            said.set_bbox({"facecolor": "black", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})


def _interval(axes: Axes, summary: dict[str, Any], metric: str, place: int) -> None:
    score = summary["metrics"]["test"][metric]
    if score["mean"] is None:
        axes.text(0.5, place, "undefined", color=GREY, size=6.5, va="center")
        return
    drawn = look(summary["run"]["name"])
    ends = [
        np.array([np.nan if score[key] is None else score[key]]) for key in ("mean", "low", "high")
    ]
    axes.errorbar(
        score["mean"],
        place,
        xerr=style.errors(*ends),
        color=drawn.colour,
        marker=drawn.marker,
        capsize=2,
    )


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=colour, linestyle=line, label=words)
        for colour, line, words in KINDS.values()
    ]
