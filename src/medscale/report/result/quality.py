"""Figures of how far a run's probabilities can be trusted: reliability diagram and subgroups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.evaluate.calibration import BINS
from medscale.evaluate.subgroups import METRICS
from medscale.report import style
from medscale.report.names import BLACK, BLUE, ORANGE, Look, label
from medscale.report.result.reading import records

CALIBRATED = (  # before and after division of the logits by the temperature
    ("no", Look(BLUE, "o", "-"), "as trained"),
    ("yes", Look(ORANGE, "s", "--"), "with the temperature"),
)
UNITS = {
    "accuracy": ("accuracy (%)", 100),
    "balanced_accuracy": ("balanced accuracy (%)", 100),
    "auroc": ("AUROC", 1),
}


def quality(table: pd.DataFrame, parts: pd.DataFrame, scores: dict[str, Any], run: str) -> Figure:
    """Draw a run's reliability diagram, the images in each bin, and below them its subgroups.

    ``scores``: metrics of the test images.
    """
    heights = [3.1, 0.5 + 0.2 * len(parts.drop_duplicates(["by", "part"]))]
    figure = style.new(sum(heights))
    figure.suptitle(label(run), size=9)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    left, right = above.subplots(1, 2)
    draw_reliability(left, table, scores)
    left.set(ylabel="accuracy", xlim=(0, 1.02))
    for name, look, _ in CALIBRATED:
        part = table[table["calibrated"] == name]
        if len(part):
            shares = np.zeros(BINS)
            bins = (part["low"] * BINS).round().astype(int)
            shares[bins] = 100 * part["images"] / part["images"].sum()
            edges = np.linspace(0, 1, BINS + 1)
            right.stairs(shares, edges, color=look.colour, linestyle=look.line)
    right.set(ylabel="images (%)", xlim=(0, 1.02))
    above.supxlabel("confidence (probability of the predicted class)", size=8)
    above.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    draw_subgroups(list(below.subplots(1, len(METRICS), sharey=True)), parts)
    return figure


def draw_reliability(
    axes: Axes, table: pd.DataFrame, scores: dict[str, Any], *, errors: bool = True
) -> None:
    """Draw reliability.csv; the size of a point grows with the images of its bin."""
    axes.plot([0, 1], [0, 1], linestyle=":", **style.REFERENCE)
    for name, look, words in CALIBRATED:
        part = table[table["calibrated"] == name]
        if part.empty:
            continue
        error = scores["ece" if name == "no" else "ece_calibrated"]["mean"]
        words += f" (ECE {error:.3f})" if errors else ""
        points = part["confidence"], part["accuracy"]
        axes.plot(*points, color=look.colour, linestyle=look.line, linewidth=0.8)
        sizes = 5 + 45 * part["images"] / table["images"].max()
        options: dict[str, Any] = {"marker": look.marker, "alpha": 0.8, "label": words}
        axes.scatter(*points, s=sizes, color=look.colour, **options)
    axes.set(ylim=(-0.02, 1.04))


def draw_subgroups(panels: Sequence[Axes], table: pd.DataFrame) -> None:
    """Draw subgroups.csv, a panel for each metric; the dashed line is that of all images."""
    judged = table.groupby(["by", "part"])["mean"].transform(lambda values: values.notna().any())
    parts = records(table.assign(judged=judged).drop_duplicates(["by", "part"]))
    words = [
        ("" if part["by"] == "all" else f"{style.shorten(str(part['by']), 28)}: ")
        + f"{style.shorten(str(part['part']), 28)} ({part['images']})"
        for part in parts
    ]
    heights = style.rows(panels[0], words)
    for axes, metric in zip(panels, METRICS, strict=True):
        unit, scale = UNITS[metric]
        rows = table[table["metric"] == metric].set_index(["by", "part"])
        for height, part in zip(heights, parts, strict=True):
            row = rows.loc[(part["by"], part["part"])]
            if np.isnan(row["mean"]):
                undefined(axes, height, "undefined" if part["judged"] else "too few images")
                continue
            if part["by"] == "all":
                axes.axvline(scale * row["mean"], linestyle="--", **style.REFERENCE)
            ends = style.score_ends(row, scale)
            style.interval(axes, height, ends, Look(BLUE, "o", ""), linestyle="", markersize=3.5)
        axes.set(xlabel=unit)


def undefined(axes: Axes, height: float, reason: str) -> None:
    """Print the reason for a missing value in a row of ``style.rows``."""
    text = axes.text(0.5, height, reason, ha="center", va="center", color=BLACK, size=6)
    text.set(transform=axes.get_yaxis_transform())
    text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
