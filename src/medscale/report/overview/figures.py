"""Figures of a study, over all its runs: accuracy, curves, ROC, confusion, speedup, efficiency, time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from medscale.evaluate.summary import KINDS
from medscale.report import style
from medscale.report.names import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    family,
    label,
    look,
)
from medscale.report.result import figures as run_figures
from medscale.report.result.reading import Result, differences

ACROSS = 5
KIND_LOOK = {
    "data": (ORANGE, "", "waiting for data"),
    "compute": (BLUE, "", "forward and backward"),
    "communication": (VERMILION, "////", "communication"),
    "checkpoint": (GREEN, "....", "checkpoint"),
    "validation": (SKY, "\\\\\\\\", "validation"),
}


@style.styled
def accuracy(results: Sequence[Result], baseline: str) -> Figure:
    """Accuracy and AUROC of the test images by run with bootstrap intervals, and the difference from the baseline."""
    figure = style.new(1.0 + 0.21 * len(results))
    places = np.arange(len(results))[::-1]
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for axes, metric, unit in ((left, "accuracy", "accuracy (%)"), (middle, "auroc", "AUROC")):
        scale = 100 if metric == "accuracy" else 1
        for place, result in zip(places, results, strict=True):
            _interval(axes, result, metric, place, scale)
            if result.name == baseline and result.score(metric)["mean"] is not None:
                axes.axvline(
                    scale * result.score(metric)["mean"], color=GREY, linewidth=0.8, linestyle="--"
                )
        axes.set(xlabel=unit)
    table = differences(results, baseline).set_index("run")
    right.axvline(0, color=GREY, linewidth=0.8, linestyle="--")
    for place, result in zip(places, results, strict=True):
        row = table.loc[result.name]
        style_ = look(result.name)
        bars = style.errors(
            np.array([row["mean"]]), np.array([row["low"]]), np.array([row["high"]])
        )
        right.errorbar(
            row["mean"], place, xerr=bars, color=style_.colour, marker=style_.marker, capsize=2
        )
    right.set(xlabel=f"accuracy less that of\n{label(baseline)} (points)")
    left.set_yticks(places, [label(result.name) for result in results])
    left.set_ylim(-0.6, len(results) - 0.4)
    return figure


@style.styled
def curves(results: Sequence[Result]) -> Figure:
    """Loss and accuracy by epoch, a column a run; the band is the range over replicates.

    Losses share an axis that rare high ones do not stretch; a panel that it cuts says how high it goes.
    """
    bands, columns = style.grid(len(results), ACROSS)
    figure = style.new(0.4 + 2.5 * bands)
    axes = style.panels(figure, len(results), columns, rows_each=2)
    most = [float(_losses(result).max()) for result in results]
    usual = max(float(_losses(result).quantile(0.98)) for result in results)
    top = 1.05 * (usual if max(most) > 2 * usual else max(most))
    for number, (result, (loss, accuracy_)) in enumerate(zip(results, axes, strict=True)):
        run_figures.draw_curves(loss, result.curves, "loss")
        run_figures.draw_curves(accuracy_, result.curves, "accuracy")
        loss.set_title(_title(result.name), size=7)
        loss.set(ylim=(0, top))
        if most[number] > top:
            loss.text(
                0.97,
                0.97,
                f"up to {most[number]:.2g}",
                transform=loss.transAxes,
                ha="right",
                va="top",
                size=6.5,
            )
        accuracy_.set(xlabel="epoch")
        if number % columns == 0:
            loss.set(ylabel="loss (cross-entropy)")
            accuracy_.set(ylabel="accuracy")
        else:
            loss.set_yticklabels([])
            accuracy_.set_yticklabels([])
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@style.styled
def roc(results: Sequence[Result]) -> Figure:
    """ROC curves of the test images, a panel a run."""
    bands, columns = style.grid(len(results), ACROSS)
    several = results[0].roc["curve"].nunique() > 1
    figure = style.new(0.25 + 1.8 * bands + 0.5 * several)
    axes = style.panels(figure, len(results), columns)
    for number, (result, (axis,)) in enumerate(zip(results, axes, strict=True)):
        run_figures.draw_roc(axis, result.roc, {})
        area = result.score("auroc")["mean"]
        axis.text(
            0.97,
            0.05,
            f"AUROC {area:.3f}" if area is not None else "undefined",
            ha="right",
            size=6.5,
        )
        axis.set_title(_title(result.name), size=7)
        axis.set(xlabel="false-positive rate", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.set(ylabel="true-positive rate" if number % columns == 0 else "")
    if several:
        handles, words = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=min(len(words), 4))
    return figure


@style.styled
def confusion(results: Sequence[Result]) -> Figure:
    """Confusion matrices of the test images, a panel a run, rows in percent of the true class."""
    bands, columns = style.grid(len(results), ACROSS)
    small = len(results[0].classes) <= 4
    figure = style.new(1.2 + (1.2 if small else 1.4) * bands)
    axes = style.panels(figure, len(results), columns)
    for number, (result, (axis,)) in enumerate(zip(results, axes, strict=True)):
        image = run_figures.draw_confusion(axis, result.confusion, result.classes, names=small)
        axis.set_title(_title(result.name), size=7)
        if number % columns:
            axis.set_yticklabels([])
        if number + columns < len(results):
            axis.set_xticklabels([])
        else:
            for tick in axis.get_xticklabels():
                tick.set(rotation=35, ha="right", rotation_mode="anchor")
    figure.supylabel("true class", size=8)
    figure.supxlabel(
        "predicted class"
        + (" (numbers: percent of the images of the true class)" if small else ""),
        size=8,
    )
    if not small:
        figure.colorbar(
            image,
            ax=[axis for (axis,) in axes],
            label="share of the true class (%)",
            shrink=0.9,
            pad=0.01,
        )
    return figure


@style.styled
def speedup(table: pd.DataFrame) -> Figure:
    """Speedup of training against devices, a panel a kind of device."""
    return _scaling(table, "speedup", "speedup")


@style.styled
def efficiency(table: pd.DataFrame) -> Figure:
    """Parallel efficiency against devices, a panel a kind of device."""
    return _scaling(table, "efficiency", "parallel efficiency")


@style.styled
def time(results: Sequence[Result]) -> Figure:
    """Seconds of an epoch by what they are spent on, a bar a run."""
    figure = style.new(0.9 + 0.2 * len(results))
    axes = figure.subplots()
    places, left = np.arange(len(results))[::-1], np.zeros(len(results))
    for kind in KINDS:
        colour, hatch, words = KIND_LOOK[kind]
        width = np.array(
            [result.summary["timing"]["seconds_by_kind"][kind]["mean"] for result in results]
        )
        axes.barh(
            places,
            width,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=words,
            height=0.7,
        )
        left += width
    axes.set_yticks(places, [label(result.name) for result in results])
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="seconds an epoch (mean without the first)", xlim=(0, None))
    figure.legend(loc="outside upper center", ncols=len(KINDS), columnspacing=1.2, handlelength=1.4)
    return figure


def _losses(result: Result) -> pd.Series:
    """The highest training and validation loss of any replicate, by epoch."""
    return result.curves.loc[result.curves["quantity"].str.endswith("_loss"), "high"]


def _interval(axes: Axes, result: Result, metric: str, place: float, scale: float) -> None:
    score = result.score(metric)
    if score["mean"] is None:
        return
    mean, low, high = (scale * np.array([score[key]]) for key in ("mean", "low", "high"))
    style_ = look(result.name)
    bars = style.errors(mean, low, high)
    axes.errorbar(mean, place, xerr=bars, color=style_.colour, marker=style_.marker, capsize=2)
    each = [scale * value for value in score["values"] if value is not None]
    axes.plot(each, [place - 0.28] * len(each), "|", color=BLACK, markersize=3.5)


def _scaling(table: pd.DataFrame, column: str, unit: str) -> Figure:
    kinds = [kind for kind in ("cpu", "gpu") if (table["device"] == kind).any()]
    figure = style.new(2.9 if len(kinds) > 1 else 2.2)
    for number, (kind, axes) in enumerate(
        zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True)
    ):
        part = table[(table["device"] == kind) & table["speedup"].notna()]
        baselines = [name for name in part["baseline"].unique() if name]
        if part.empty:
            style.empty(axes, f"no baseline for {kind.upper()} runs was made")
            continue
        _families(axes, part, column)
        devices = np.array(sorted({1, *part["devices"]}))
        ideal = devices if column == "speedup" else np.ones(len(devices))
        axes.plot(devices, ideal, color=GREY, linewidth=0.8, linestyle=":", label="ideal")
        axes.set_xscale("log", base=2)
        axes.set(
            xticks=devices,
            xlim=(devices[0] * 0.85, devices[-1] * 1.18),
            xlabel=_devices(kind, part),
        )
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        if column == "speedup":
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
            lowest, highest = min(1, part[column].min()), max(devices[-1], part[column].max())
            axes.set_yticks(
                2.0 ** np.arange(np.floor(np.log2(lowest)), np.ceil(np.log2(highest)) + 1)
            )
        else:
            axes.set_ylim(0, None)
        axes.set(
            title="against " + " and ".join(label(name) for name in baselines),
            ylabel=unit if number == 0 else "",
        )
        style.legend_beside(axes, alone=len(kinds) == 1)
    return figure


def _families(axes: Axes, part: pd.DataFrame, column: str) -> None:
    """A line a family; one without a run on one device begins at the serial run of its precision."""
    names = part["run"].map(family)
    shifts = np.linspace(-0.03, 0.03, max(names.nunique(), 2))
    for shift, (words, rows) in zip(shifts, part.groupby(names, sort=False), strict=False):
        drawn = look(rows["run"].iloc[0])
        if rows["devices"].min() > 1 and "," not in str(words):
            serial = part["run"].isin(
                [f"serial{'_amp' if rows['amp'].iloc[0] else ''}_1{rows['device'].iloc[0]}"]
            )
            rows = pd.concat([part[serial], rows])
        rows = rows.sort_values("devices")
        axes.errorbar(
            rows["devices"] * 2**shift,
            rows[column],
            yerr=style.errors(
                *(rows[f"{column}{end}"].to_numpy() for end in ("", "_low", "_high"))
            ),
            label=words,
            color=drawn.colour,
            marker=drawn.marker,
            linestyle=drawn.line,
            capsize=2,
        )


def _devices(kind: str, part: pd.DataFrame) -> str:
    if part["stand_in"].any():
        return "CPU processes in place of GPUs"
    return "CPU processes" if kind == "cpu" else "GPUs"


def _title(run: str) -> str:
    return label(run).replace(", ", "\n", 1)
