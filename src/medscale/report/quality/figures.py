"""Figures of how far probabilities and averages can be trusted: reliability diagrams, subgroups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.evaluate.calibration import BINS
from medscale.evaluate.subgroups import METRICS
from medscale.report import style
from medscale.report.names import BLACK, BLUE, GREY, ORANGE, label
from medscale.report.result import figures as run_figures
from medscale.report.result.reading import Result, records

CALIBRATED = (
    ("no", BLUE, "-", "o", "as trained"),
    ("yes", ORANGE, "--", "s", "with the temperature"),
)
UNITS = {
    "accuracy": ("accuracy (%)", 100),
    "balanced_accuracy": ("balanced accuracy (%)", 100),
    "auroc": ("AUROC", 1),
}
ACROSS = 5


@style.styled
def quality(table: pd.DataFrame, parts: pd.DataFrame, scores: dict[str, Any], run: str) -> Figure:
    """A run's reliability diagram with how many images are in each bin, and below it its subgroups."""
    rows = len(parts.drop_duplicates(["by", "part"]))
    figure = style.new(3.1 + 0.5 + 0.2 * rows)
    figure.suptitle(label(run), size=9)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.1, 0.5 + 0.2 * rows])[
        :, 0
    ]
    left, right = above.subplots(1, 2)
    draw_reliability(left, table, scores)
    left.set(ylabel="accuracy", xlim=(0, 1.02))
    for name, colour, line, _, _ in CALIBRATED:
        part = table[table["calibrated"] == name]
        if len(part):
            shares = np.zeros(BINS)
            shares[(part["low"] * BINS).round().astype(int)] = (
                100 * part["images"] / part["images"].sum()
            )
            right.stairs(shares, np.linspace(0, 1, BINS + 1), color=colour, linestyle=line)
    right.set(ylabel="images (%)", xlim=(0, 1.02))
    above.supxlabel("confidence (probability of the predicted class)", size=8)
    above.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    draw_subgroups(list(below.subplots(1, len(METRICS), sharey=True)), parts)
    return figure


@style.styled
def subgroups(table: pd.DataFrame, run: str) -> Figure:
    """Accuracy, balanced accuracy and AUROC by part of the test images with bootstrap intervals."""
    parts = table.drop_duplicates(["by", "part"])
    if len(parts) < 2:
        figure = style.new(1.2)
        style.empty(
            figure.subplots(), "no age, sex, view or source set tells the test images apart"
        )
        return figure
    figure = style.new(1.0 + 0.2 * len(parts))
    figure.suptitle(f"{label(run)}: test images by subgroup", size=9)
    draw_subgroups(list(figure.subplots(1, len(METRICS), sharey=True)), table)
    return figure


@style.styled
def calibration(results: Sequence[Result], baseline: str) -> Figure:
    """The baseline's reliability diagram, and calibration error and Brier score of each run before and after."""
    base = next(result for result in results if result.name == baseline)
    figure = style.new(max(2.6, 1.2 + 0.22 * len(results)))
    left, *others = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    draw_reliability(left, base.reliability, base.summary["metrics"]["test"], areas=False)
    left.set(
        xlabel="confidence", ylabel="accuracy", title=f"baseline: {label(baseline)}", xlim=(0, 1.02)
    )
    places = np.arange(len(results))[::-1]
    for axes, metric in zip(others, ("ece", "brier"), strict=True):
        for shift, (suffix, (_, colour, _, marker, words)) in zip(
            (0.14, -0.14), zip(("", "_calibrated"), CALIBRATED, strict=True), strict=True
        ):
            rows = [result.summary["metrics"]["test"].get(metric + suffix) for result in results]
            there = [
                (place, row) for place, row in zip(places, rows, strict=True) if row is not None
            ]
            mean, low, high = (
                np.array([row[key] for _, row in there]) for key in ("mean", "low", "high")
            )
            at = np.array([place for place, _ in there]) + shift
            bars = style.errors(mean, low, high)
            axes.errorbar(
                mean,
                at,
                xerr=bars,
                fmt=marker,
                color=colour,
                capsize=2,
                markersize=3.5,
                label=words,
            )
        axes.set(
            xlabel={"ece": "calibration error (ECE)", "brier": "Brier score"}[metric],
            ylim=(-0.6, len(results) - 0.4),
        )
        axes.set_yticks(
            places, [label(result.name) for result in results] if metric == "ece" else []
        )
        axes.set_xlim(0, None)
    figure.legend(*others[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


@style.styled
def precision_recall(results: Sequence[Result]) -> Figure:
    """Precision against recall of the test images, a panel a run."""
    bands, columns = style.grid(len(results), ACROSS)
    figure = style.new(0.6 + 1.85 * bands)
    axes = style.panels(figure, len(results), columns)
    for number, (result, (axis,)) in enumerate(zip(results, axes, strict=True)):
        run_figures.draw_curve(axis, result.precision_recall, ("recall", "precision"), {})
        area = result.score("auprc")["mean"]
        told = f"AP {area:.3f}" if area is not None else "undefined"
        axis.set_title(label(result.name).replace(", ", "\n", 1) + f": {told}", size=6.5)
        axis.set(xlabel="recall", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.set(ylabel="precision" if number % columns == 0 else "")
    handles, words = axes[0][0].get_legend_handles_labels()
    if len(words) > 1:
        figure.legend(handles, words, loc="outside lower center", ncols=min(len(words), 4))
    return figure


def draw_reliability(
    axes: Axes, table: pd.DataFrame, scores: dict[str, Any], *, areas: bool = True
) -> None:
    """Draw reliability.csv; the size of a point grows with the images of its bin."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for name, colour, line, marker, words in CALIBRATED:
        part = table[table["calibrated"] == name]
        if part.empty:
            continue
        score = scores["ece" if name == "no" else "ece_calibrated"]["mean"]
        words += f" (ECE {score:.3f})" if areas else ""
        size = 5 + 45 * part["images"] / table["images"].max()
        axes.plot(part["confidence"], part["accuracy"], color=colour, linestyle=line, linewidth=0.8)
        axes.scatter(
            part["confidence"],
            part["accuracy"],
            s=size,
            color=colour,
            marker=marker,
            alpha=0.8,
            label=words,
        )
    axes.set(ylim=(-0.02, 1.04))


def draw_subgroups(panels: Sequence[Axes], table: pd.DataFrame) -> None:
    """Draw subgroups.csv, a panel a metric; the dashed line is that of all images."""
    judged = table.groupby(["by", "part"])["mean"].transform(lambda values: values.notna().any())
    parts = records(table.assign(judged=judged).drop_duplicates(["by", "part"]))
    places = np.arange(len(parts))[::-1]
    for axes, metric in zip(panels, METRICS, strict=True):
        unit, scale = UNITS[metric]
        rows = table[table["metric"] == metric].set_index(["by", "part"])
        for place, part in zip(places, parts, strict=True):
            row = rows.loc[(part["by"], part["part"])]
            if np.isnan(row["mean"]):
                why = "undefined" if part["judged"] else "too few images"
                where = axes.get_yaxis_transform()
                said = axes.text(
                    0.5, place, why, transform=where, color=BLACK, size=6, ha="center", va="center"
                )
                said.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
                continue
            mean, low, high = (scale * np.array([row[key]]) for key in ("mean", "low", "high"))
            if part["by"] == "all":
                axes.axvline(mean[0], color=GREY, linewidth=0.8, linestyle="--")
            axes.errorbar(
                mean,
                place,
                xerr=style.errors(mean, low, high),
                fmt="o",
                color=BLUE,
                capsize=2,
                markersize=3.5,
            )
        axes.set(xlabel=unit)
    words = [
        f"{_head(part)}{style.shorten(str(part['part']), 28)} ({part['images']})" for part in parts
    ]
    panels[0].set_yticks(places, words)
    panels[0].set_ylim(-0.6, len(parts) - 0.4)


def _head(part: dict[str, Any]) -> str:
    return "" if part["by"] == "all" else f"{part['by']}: "
