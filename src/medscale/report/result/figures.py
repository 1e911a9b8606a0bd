"""Figures of a classification run: learning curves, confusion matrix, ROC and precision-recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from medscale.report import style
from medscale.report.names import BLACK, BLUE, COLOURS, GREY, LINES, MARKERS, VERMILION, label

QUANTITIES = (("loss", "loss (cross-entropy)"), ("accuracy", "accuracy"))
SPLITS = (("train", "training", VERMILION, "--"), ("val", "validation", BLUE, "-"))
AVERAGES: dict[str, tuple[str, Any]] = {
    "macro average": (BLACK, "-"),
    "micro average": (GREY, "--"),
}
MANY = 8  # classes above which a matrix holds no small numbers and curves show averages only


def curves(
    table: pd.DataFrame, run: str, quantities: Sequence[tuple[str, str]] = QUANTITIES
) -> Figure:
    """Draw quantities of training and validation by epoch; the band is the range of replicates."""
    figure = style.new(2.5)
    figure.suptitle(label(run), size=9)
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    for axes, (name, unit) in zip(panels, quantities, strict=True):
        draw_curves(axes, table, name)
        axes.set(xlabel="epoch", ylabel=unit)
        axes.legend()
    return figure


def confusion(counts: np.ndarray, classes: list[str], run: str) -> Figure:
    """Draw the confusion matrix of the test images, each row in percent of its true class."""
    side = min(6.3, max(3.0, 1.4 + 0.42 * len(classes)))
    figure = style.new(side * 0.9, side)
    axes = figure.subplots()
    image = draw_confusion(axes, counts, classes)
    axes.set(xlabel="predicted class", ylabel="true class", title=label(run))
    bar = figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8)
    if len(classes) > MANY:
        bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
    return figure


def roc(
    roc: pd.DataFrame,
    pr: pd.DataFrame,
    areas: Sequence[dict[str, float]],
    run: str,
    operating: Sequence[Mapping[str, Any]],
) -> Figure:
    """Draw ROC and precision-recall curves: thick the mean over seeds, thin each seed.

    Args:
        roc, pr: roc.csv and pr.csv.
        areas: AUROC and average precision by curve.
        run: name of the run.
        operating: rows of operating.csv; those of a study with two classes are drawn.
    """
    figure = style.new(3.6, 6.3)
    figure.suptitle(label(run), size=9)
    left, right = figure.subplots(1, 2)
    if roc.empty:
        for axes in (left, right):
            style.empty(axes, "undefined: only one class\noccurs in the test images")
        return figure
    draw_roc(left, roc, areas[0])
    draw_curve(right, pr, ("recall", "precision"), areas[1])
    if len({row["class"] for row in operating}) == 1:
        for marker, row in zip(cycle(MARKERS), operating, strict=False):
            words = f"validation specificity {100 * row['wanted']:g} %"
            point = 1 - row["specificity"], row["sensitivity"]
            left.plot(*point, marker, color=BLACK, markersize=4, fillstyle="none", label=words)
    left.set(xlabel="false-positive rate", ylabel="true-positive rate")
    right.set(xlabel="recall", ylabel="precision")
    for axes in (left, right):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure


def draw_curves(axes: Axes, table: pd.DataFrame, quantity: str) -> None:
    """Draw training and validation ``quantity`` (loss or accuracy) of curves.csv."""
    for split, words, colour, line in SPLITS:
        part = table[table["quantity"] == f"{split}_{quantity}"].sort_values("epoch")
        axes.plot(
            part["epoch"],
            part["mean"],
            color=colour,
            linestyle=line,
            marker=style.marker_of(len(part)),
            label=words,
        )
        ends = part["low"], part["high"]
        axes.fill_between(part["epoch"], *ends, color=colour, alpha=0.2, linewidth=0)
    if quantity == "accuracy":
        axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))


def draw_confusion(
    axes: Axes,
    counts: np.ndarray,
    classes: list[str],
    *,
    names: bool = True,
    digits: float | None = None,
) -> AxesImage:
    """Draw a row-normalised matrix with its numbers; return the image for a colour bar.

    With many classes the colours show square roots, so that rare confusions are visible, and
    numbers begin at 0.5 %. The row of a class without images has no numbers.

    Args:
        axes: the panel.
        counts: images, a row for each true class and a column for each predicted one.
        classes: names of the classes.
        names: whether both axes name the classes.
        digits: size of the numbers in points, 0 for none; by default it suits the classes.
    """
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many = len(classes) > MANY
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5 if many else 1, 0, 100))
    axes.grid(visible=False)
    ticks = range(len(classes)) if names else []
    words = [style.short_class(name, 18) for name in classes] if names else []
    tick_size, usual = (5, 4) if len(classes) > 15 else (7, 7)
    size = usual if digits is None else digits
    axes.set_xticks(ticks, words, rotation=90 if len(classes) > 3 else 0, fontsize=tick_size)
    axes.set_yticks(ticks, words, fontsize=tick_size)
    for (row, column), share in np.ndenumerate(shares):
        if size and counts[row].any() and (not many or share >= 0.5):
            colour = "white" if share > (30 if many else 55) else "black"
            options: dict[str, Any] = {
                "ha": "center",
                "va": "center",
                "color": colour,
                "size": size,
            }
            axes.text(column, row, f"{share:.0f}", **options)
    return image


def draw_roc(axes: Axes, points: pd.DataFrame, auroc: dict[str, float]) -> None:
    """Draw the curves of roc.csv; ``auroc`` is printed in the legend by curve."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle=":")
    draw_curve(axes, points, ("false_positive_rate", "true_positive_rate"), auroc)


def draw_curve(
    axes: Axes, points: pd.DataFrame, columns: tuple[str, str], areas: dict[str, float]
) -> None:
    """Draw the curves of roc.csv or pr.csv; of many classes only their averages.

    Args:
        axes: the panel.
        points: the table; an empty ``seed`` marks the mean over seeds.
        columns: those of the horizontal and the vertical axis.
        areas: area below a curve by its name, for the legend.
    """
    names = list(dict.fromkeys(points["curve"]))
    if len(names) > MANY:
        names = [name for name in names if name.endswith(" average")]
    for number, name in enumerate(names):
        own = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
        colour, line = AVERAGES.get(name, own)
        area = f" ({areas[name]:.3f})" if name in areas else ""
        for seed, part in points[points["curve"] == name].groupby("seed", dropna=False):
            options: dict[str, Any] = {"linestyle": "-", "linewidth": 0.5, "alpha": 0.4}
            if pd.isna(seed) or seed == "":
                words = style.legend_entry(name) + area
                options = {"linestyle": line, "linewidth": 1.4, "alpha": 1, "label": words}
            axes.plot(part[columns[0]], part[columns[1]], color=colour, **options)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
