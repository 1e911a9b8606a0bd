"""Figures of how far a study's results can be trusted, over its runs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medscale.evaluate.subgroups import METRICS
from medscale.report import style
from medscale.report.names import LOOKS, label, title
from medscale.report.result.figures import draw_curve
from medscale.report.result.quality import (
    CALIBRATED,
    draw_reliability,
    draw_subgroups,
    undefined,
)
from medscale.report.result.reading import Result, records

COLUMNS = 5
RATES = ("sensitivity", "specificity")
ERRORS = {"ece": "calibration error (ECE)", "brier": "Brier score"}


def subgroups(table: pd.DataFrame) -> Figure:
    """Draw accuracy, balanced accuracy and AUROC by subgroup of the test images."""
    parts = table.drop_duplicates(["by", "part"])
    if len(parts) < 2:
        return style.only_text("no age, sex, view or source set tells the test images apart")
    figure = style.new(0.5 + 0.17 * len(parts))
    panels = list(figure.subplots(1, len(METRICS), sharey=True))
    draw_subgroups(panels, without_single_classes(table))
    return figure


def without_single_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Return subgroups.csv with an undefined balanced accuracy where a subgroup has one class.

    In such a subgroup the AUROC is undefined, and the balanced accuracy equals the accuracy.
    """
    wide = table.pivot(index=["by", "part"], columns="metric", values="mean")
    single = wide["auroc"].isna() & (wide["balanced_accuracy"] == wide["accuracy"])
    keys = pd.MultiIndex.from_frame(table[["by", "part"]])
    hidden = single.reindex(keys).to_numpy(bool) & (table["metric"] == "balanced_accuracy")
    ends = ["mean", "low", "high"]
    return table.assign(**{end: table[end].mask(hidden) for end in ends})


def gaps(result: Result, classes: Sequence[str]) -> Figure:
    """Draw sensitivity and specificity by subgroup at the first operating point."""
    table = result.gaps[result.gaps["class"].isin(classes)]
    if table.empty:
        return style.only_text("no age, sex, view or source set tells the test images apart")
    table = table[table["wanted"] == table["wanted"].min()]
    parts = records(table.drop_duplicates(["by", "part", "class"]))
    figure = style.new(1.0 + 0.2 * len(parts))
    figure.suptitle(f"{label(result.name)}: at a threshold from validation", size=9)
    panels = figure.subplots(1, len(RATES), sharey=True)
    several = len(classes) > 1
    names = [
        f"{row['by']}: {style.shorten(str(row['part']), 28)}"
        + (f" ({style.short_class(str(row['class']), 20)})" if several else "")
        for row in parts
    ]
    heights = style.rows(panels[0], names)
    for axes, rate in zip(panels, RATES, strict=True):
        rows = table[table["rate"] == rate].set_index(["by", "part", "class"])
        for height, part in zip(heights, parts, strict=True):
            row = rows.loc[(part["by"], part["part"], part["class"])]
            if np.isnan(row["value"]):
                undefined(axes, height, f"too few images ({int(row['images'])})")
                continue
            ends = [100 * row[end] for end in ("value", "low", "high")]
            style.interval(axes, height, ends, LOOKS[0], linestyle="", markersize=3.5)
        overall = result.operating[result.operating["wanted"] == table["wanted"].iloc[0]]
        if not several:
            whole = 100 * overall[overall["class"].isin(classes)][rate].iloc[0]
            axes.axvline(whole, linestyle="--", **style.REFERENCE)
        axes.set(xlabel=f"{rate} (%)")
    return figure


def calibration(results: Sequence[Result], baseline: Result) -> Figure:
    """Draw the baseline's reliability diagram, and the calibration errors of each run."""
    figure = style.new(max(2.6, 1.2 + 0.22 * len(results)))
    left, *right = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    draw_reliability(left, baseline.reliability, baseline.summary["metrics"]["test"], errors=False)
    name = ("baseline: " if len(results) > 1 else "") + label(baseline.name)
    left.set(xlabel="confidence", ylabel="accuracy", title=name, xlim=(0, 1.02))
    for axes, (metric, unit) in zip(right, ERRORS.items(), strict=True):
        names = [label(result.name) for result in results]
        heights = style.rows(axes, names)
        cases = zip((0.14, -0.14), ("", "_calibrated"), CALIBRATED, strict=True)
        for shift, suffix, (_, look, words) in cases:
            scores = [result.summary["metrics"]["test"].get(metric + suffix) for result in results]
            rows = [(h, score) for h, score in zip(heights, scores, strict=True) if score]
            ends = [np.array([s[key] for _, s in rows]) for key in ("mean", "low", "high")]
            middles = np.array([height for height, _ in rows]) + shift
            options = style.of_look(look, linestyle="", capsize=2, markersize=3.5, label=words)
            axes.errorbar(ends[0], middles, xerr=style.errors(*ends), **options)
        if metric != "ece":
            axes.set_yticks(heights, [])
        axes.set(xlabel=unit)
        axes.set_xlim(0, None)
    figure.legend(*right[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


def precision_recall(results: Sequence[Result]) -> Figure:
    """Draw precision against recall of the test images, a panel for each run."""
    bands, columns = style.grid(len(results), COLUMNS)
    figure = style.new(0.6 + 1.85 * bands)
    axes = style.panels(figure, len(results), columns)
    for number, (result, (axis,)) in enumerate(zip(results, axes, strict=True)):
        draw_curve(axis, result.pr, ("recall", "precision"), {})
        area = result.score("auprc")["mean"]
        words = f"AP {area:.3f}" if area is not None else "undefined"
        axis.set_title(f"{title(result.name)}: {words}", size=6.5)
        axis.set(xlabel="recall", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.set(ylabel="precision" if number % columns == 0 else "")
    handles, labels = axes[0][0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    return figure
