"""Figures of runs on images of another origin: inside against outside, scores, reliability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medscale.report import style
from medscale.report.names import BLUE, VERMILION, Look, label
from medscale.report.result.external import draw_distribution
from medscale.report.result.quality import draw_reliability
from medscale.report.result.reading import Result, records

SIDES = {
    "inside": (Look(BLUE, "o", ""), 0.14, "inside: test images of the same origin"),
    "outside": (Look(VERMILION, "s", ""), -0.14, "outside: images of another origin"),
}
METRICS = {"auroc": ("AUROC", 1), "balanced_accuracy": ("balanced accuracy (%)", 100)}


@dataclass(frozen=True)
class Outside:
    """An external evaluation, as its folder holds it."""

    summary: dict[str, Any]
    inside: Result  # the result of the same run on its test split
    distribution: pd.DataFrame
    reliability: pd.DataFrame
    operating: pd.DataFrame


def inside_outside(rows: pd.DataFrame) -> Figure:
    """Draw metrics inside and outside, a row for each external set or held-out source."""
    figure = style.new(1.1 + 0.34 * len(rows))
    panels = figure.subplots(1, len(METRICS), sharey=True)
    names = [style.wrapped(f"{row['set']} ({label(row['run'])})", 40) for row in records(rows)]
    heights = style.rows(panels[0], names)
    for axes, (metric, (unit, scale)) in zip(panels, METRICS.items(), strict=True):
        for height, row in zip(heights, records(rows), strict=True):
            for side, (look, by, _) in SIDES.items():
                ends = [scale * row[f"{metric}_{side}{end}"] for end in ("", "_low", "_high")]
                if ends[0] == ends[0]:
                    style.interval(axes, height + by, ends, look, linestyle="", markersize=3.5)
        axes.set(xlabel=unit)
    handles = [Line2D([], [], **style.of_look(look), label=w) for look, _, w in SIDES.values()]
    style.legend_below(figure, handles, ncols=2)
    return figure


def scores(sets: Sequence[Outside]) -> Figure:
    """Draw the scores of the last class inside and outside, and the reliability outside."""
    if not sets:
        return style.only_text("no external set: sources were held out only")
    figure = style.new(0.8 + 1.9 * len(sets))
    panels = figure.subplots(len(sets), 3, squeeze=False)
    for row, outside in zip(panels, sets, strict=True):
        name = outside.summary["classes"][-1]
        tables = (outside.inside.distribution, outside.distribution)
        titles = ("inside", style.shorten(outside.summary["title"], 30))
        for axes, table, title in zip(row, tables, titles, strict=False):
            draw_distribution(axes, table[table["class"] == name])
            axes.set(xlabel=f"probability of {style.short_class(name, 20)}", title=title)
        row[0].set_ylabel("share of the class (%)")
        draw_reliability(row[2], outside.reliability, outside.summary["metrics"]["test"])
        row[2].set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02))
        row[2].set_title(f"outside, {label(outside.inside.name)}")
        row[2].legend(loc="upper left", fontsize=5.5)
    style.legend_below(figure, panels[0][0].get_legend_handles_labels()[0])
    return figure
