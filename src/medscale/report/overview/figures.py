"""Figures of a study's images, and of scores and times over all its classification runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medscale.evaluate.summary import KINDS
from medscale.report import style
from medscale.report.names import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SPLITS_IN_WORDS,
    TIME_LOOKS,
    VERMILION,
    family,
    label,
    look,
    numbered_look,
    title,
)
from medscale.report.result import figures as of_run
from medscale.report.result.reading import Result, differences, records

COLUMNS = 5
CURVES = {
    "train_loss": "training loss (cross-entropy)",
    "val_loss": "validation loss (cross-entropy)",
    "val_accuracy": "validation accuracy",
}
LINE_WIDTH = 0.015  # of a curve, as a share of the height of its panel
SPLIT_LOOK = {"train": (BLUE, ""), "val": (ORANGE, "////"), "test": (VERMILION, "||||")}
NAMED = 4  # classes up to which a matrix names them on both sides


def audit(fates: dict[str, int], counts: pd.DataFrame) -> Figure:
    """Draw how many files were found, used and left out, and the images by class and split.

    Args:
        fates: number of files found, used and left out for each reason, in this order.
        counts: images, a row for each class and a column for each split.
    """
    rows = max(len(fates), len(counts))
    figure = style.new(0.9 + 0.22 * max(rows, 4))
    left, right = figure.subplots(1, 2)
    heights, files = np.arange(len(fates))[::-1], list(fates.values())
    left.barh(heights, files, color=[GREY, BLUE, *[VERMILION] * (len(fates) - 2)], height=0.65)
    _finish(left, rows, heights, files, [style.shorten(name, 30) for name in fates])
    left.set(xlabel="files")
    heights, start = np.arange(len(counts))[::-1], np.zeros(len(counts))
    for split, (colour, hatch) in SPLIT_LOOK.items():
        width, words = counts[split].to_numpy(float), SPLITS_IN_WORDS[split]
        part: dict[str, Any] = {"color": colour, "hatch": hatch, "ec": "white", "label": words}
        right.barh(heights, width, 0.65, start, **part)
        start += width
    _finish(
        right, rows, heights, start, [style.short_class(str(name), 24) for name in counts.index]
    )
    right.set(xlabel="images used")
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    right.legend(**place, ncols=3, columnspacing=1.2, handlelength=1.4)
    return figure


def accuracy(results: Sequence[Result], baseline: str) -> Figure:
    """Draw accuracy and AUROC of each run, and its difference in accuracy from the baseline.

    A single run has no panel of differences.
    """
    figure = style.new(1.0 + 0.21 * len(results))
    left, middle, *difference_axes = figure.subplots(1, 3 if len(results) > 1 else 2, sharey=True)
    heights = style.rows(left, [label(result.name) for result in results])
    metrics = ((left, "accuracy", "accuracy (%)", 100), (middle, "auroc", "AUROC", 1))
    for axes, metric, unit, scale in metrics:
        for height, result in zip(heights, results, strict=True):
            score = result.score(metric)
            if score["mean"] is None:
                continue
            style.interval(axes, height, style.score_ends(score, scale), look(result.name))
            seeds = [scale * value for value in score["values"] if value is not None]
            axes.plot(seeds, [height - 0.28] * len(seeds), "|", color=BLACK, markersize=3.5)
            if difference_axes and result.name == baseline:
                axes.axvline(scale * score["mean"], linestyle="--", **style.REFERENCE)
        axes.set(xlabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(4))  # more decimals would touch each other
    for right in difference_axes:
        right.axvline(0, linestyle="--", **style.REFERENCE)
        for height, row in zip(heights, records(differences(results, baseline)), strict=True):
            style.interval(right, height, (row["mean"], row["low"], row["high"]), look(row["run"]))
        right.set(xlabel=f"accuracy less that of\n{label(baseline)} (points)")
    return figure


def curves(results: Sequence[Result]) -> Figure:
    """Draw loss and accuracy by epoch, a line for each run; the band is the range of replicates.

    The losses have one axis. It ends at the 98th percentile where single losses are much higher;
    a panel that it cuts prints its highest loss. Runs whose curves are equal digit for digit share
    a line.
    """
    groups = _equal_curves(results)
    figure = style.new(1.95 + 0.14 * -(-len(groups) // 4))
    panels = figure.subplots(1, len(CURVES))
    top = _top_of_losses(results)
    for axes, (quantity, words) in zip(panels, CURVES.items(), strict=True):
        highest = 0.0
        for number, group in enumerate(groups):
            part = group[0].curves[group[0].curves["quantity"] == quantity].sort_values("epoch")
            drawn = numbered_look(number)
            names = "; ".join(label(r.name) for r in group)
            marker = style.marker_of(len(part), drawn.marker)
            options = style.of_look(drawn, marker=marker, label=names)
            axes.plot(part["epoch"], part["mean"], **options)
            ends = part["low"], part["high"]
            axes.fill_between(part["epoch"], *ends, color=drawn.colour, alpha=0.15, linewidth=0)
            highest = max(highest, float(part["high"].max()))
        is_loss = quantity.endswith("_loss")
        axes.set(xlabel="epoch", title=words, ylim=(0, top if is_loss else 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
        if is_loss and highest > top:
            place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top"}
            axes.text(0.97, 0.97, f"up to {highest:.2g}", size=6.5, **place)
    handles = panels[0].get_legend_handles_labels()[0]
    longest = max(len(str(handle.get_label())) for handle in handles)
    style.legend_below(figure, handles, ncols=4 if longest < 28 else 2)
    return figure


def _equal_curves(results: Sequence[Result]) -> list[list[Result]]:
    """Group the results whose curves are equal digit for digit."""
    groups: list[list[Result]] = []
    for result in results:
        matches = [group for group in groups if _drawn(group[0]).equals(_drawn(result))]
        if matches:
            matches[0].append(result)
        else:
            groups.append([result])
    return groups


def _drawn(result: Result) -> pd.DataFrame:
    """Return the rows of curves.csv that ``curves`` draws."""
    return result.curves[result.curves["quantity"].isin(CURVES)].reset_index(drop=True)


def coinciding(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return, for each run that others coincide with in ``curves``, their labels.

    ``visible`` is the first of them, ``hidden`` are those that lie on it: no mean is farther from
    its own than the width of a line.
    """
    top = _top_of_losses(results)
    places: list[tuple[str, pd.Series, list[str]]] = []
    for result in results:
        name, means = label(result.name), _drawn(result).set_index(["quantity", "epoch"])["mean"]
        is_loss = means.index.get_level_values("quantity").str.endswith("_loss")
        heights: pd.Series = means / np.where(is_loss, top, 1)
        for _, other, hidden in places:
            if heights.index.equals(other.index) and (heights - other).abs().max() < LINE_WIDTH:
                hidden.append(name)
                break
        else:
            places.append((name, heights, []))
    return [{"visible": name, "hidden": hidden} for name, _, hidden in places if hidden]


def roc(results: Sequence[Result]) -> Figure:
    """Draw ROC curves of the test images, a panel for each run."""
    bands, columns = style.grid(len(results), COLUMNS)
    several = results[0].roc["curve"].nunique() > 1
    side = min(1.8, style.WIDTH / columns - 0.45)  # inches: panels are squares
    figure = style.new((side + 0.65) * bands + 0.5 * several)
    axes = style.panels(figure, len(results), columns)
    for number, (result, (axis,)) in enumerate(zip(results, axes, strict=True)):
        of_run.draw_roc(axis, result.roc, {})
        area = result.score("auroc")["mean"]
        words = f"AUROC {area:.3f}" if area is not None else "undefined"
        axis.text(0.97, 0.05, words, ha="right", size=6.5)
        axis.set_title(title(result.name), size=7)
        axis.set(xlabel="false-positive rate", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.set(ylabel="true-positive rate" if number % columns == 0 else "")
    if several:
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    return figure


def confusion(results: Sequence[Result]) -> Figure:
    """Draw confusion matrices of the test images, a panel for each run, for any number of classes.

    The first panel of a row names the true classes. Up to ``NAMED`` classes are named below as
    well; more are numbered, and the names at the left have the same numbers.
    """
    classes = results[0].classes
    has_names = len(classes) <= NAMED
    columns, side = _matrix_layout(len(results), len(classes))
    names = [style.short_class(name, 18) for name in classes]
    numbers = [str(number) for number in range(1, len(classes) + 1)]
    # Inches of the longest slanted name.
    below = 0.055 * max(map(len, names)) if has_names else 0.15
    figure = style.new(0.6 + below + (side + 0.45) * -(-len(results) // columns))
    figure.set_layout_engine("compressed")  # panels are squares: no gaps between them
    axes = style.panels(figure, len(results), columns)
    cell = 72 * side / len(classes)  # points
    size = min(7.0, 0.9 * cell)  # of letters in points
    for number, (result, (axis,)) in enumerate(zip(results, axes, strict=True)):
        image = of_run.draw_confusion(
            axis, result.confusion, classes, names=False, digits=7 if cell >= 13 else 0
        )
        axis.set_title(title(result.name), size=7)
        if number % columns == 0:
            rows = (
                names if has_names else [f"{n}  {i}" for n, i in zip(names, numbers, strict=True)]
            )
            axis.set_yticks(range(len(classes)), rows, fontsize=size)
        if number + columns >= len(results):
            slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
            words, options = (names, slanted) if has_names else (numbers, {})
            every = 1 if has_names or cell >= 11 else 5  # the first, and then each that many
            places = [n for n in range(len(classes)) if n == 0 or (n + 1) % every == 0]
            chosen = [words[n] for n in places]
            axis.set_xticks(places, chosen, fontsize=max(size, 5), **options)
    figure.supylabel("true class", size=8)
    naming = "" if has_names else ", by its number at the left"
    unit = " (numbers in a square: percent of the images of the true class)" if cell >= 13 else ""
    figure.supxlabel(f"predicted class{naming}{unit}", size=8)
    bar: dict[str, Any] = {"label": "share of the true class (%)", "shrink": 0.9, "pad": 0.02}
    if not has_names:
        figure.colorbar(image, ax=[axis for (axis,) in axes], **bar)
    return figure


def _matrix_layout(panels: int, classes: int) -> tuple[int, float]:
    """Return panels in a row and the side of each, in inches.

    The panels are as large as a page allows, but no larger than their classes need.
    """
    if classes <= NAMED:
        columns = style.grid(panels, COLUMNS)[1]
        return columns, min(max(0.3 * classes, 0.9), 4.6 / columns)
    for columns in range(1, COLUMNS + 1):
        side = min(0.3 * classes, 4.6 / columns)
        if -(-panels // columns) * (side + 0.45) <= 6.2:
            break
    return min(columns, panels), side


def speedup(times: pd.DataFrame) -> Figure:
    """Draw the speedup of training against devices, a panel for each kind of device."""
    kinds = [kind for kind in ("cpu", "gpu") if (times["device"] == kind).any()]
    figure = style.new(2.9 if len(kinds) > 1 else 2.2)
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for number, (kind, axes) in enumerate(zip(kinds, panels, strict=True)):
        part = times[(times["device"] == kind) & times["speedup"].notna()]
        if part.empty:
            style.empty(axes, f"no baseline for {kind.upper()} runs was made")
            continue
        _families(axes, part)
        counts = np.array(sorted({1, *part["devices"]}))
        axes.plot(counts, counts, linestyle=":", label="ideal", **style.REFERENCE)
        style.devices(axes, counts, _devices(kind, part))
        lowest = min(1, part["speedup"].min())
        highest = max(counts[-1], part["speedup"].max())
        powers = np.arange(np.floor(np.log2(lowest)), np.ceil(np.log2(highest)) + 1)
        style.binary(axes, "y", 2.0**powers)
        baselines = " and ".join(label(name) for name in part["baseline"].unique() if name)
        axes.set(title=f"against {baselines}", ylabel="speedup" if number == 0 else "")
        style.legend_beside(axes, alone=len(kinds) == 1)
    return figure


def time(results: Sequence[Result]) -> Figure:
    """Draw the seconds of an epoch by activity, a bar for each run."""
    figure = style.new(0.9 + 0.2 * len(results))
    axes = figure.subplots()
    heights, start = np.arange(len(results))[::-1], np.zeros(len(results))
    for kind in KINDS:
        colour, hatch, words = TIME_LOOKS[kind]
        seconds = [r.summary["timing"]["seconds_by_kind"][kind]["mean"] for r in results]
        part: dict[str, Any] = {"color": colour, "hatch": hatch, "ec": "white", "label": words}
        axes.barh(heights, seconds, 0.7, start, **part)
        start += np.array(seconds)
    axes.set_yticks(heights, [label(result.name) for result in results])
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="seconds an epoch (mean without the first)", xlim=(0, None))
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": len(KINDS)}
    figure.legend(**place, columnspacing=1.2, handlelength=1.4)
    return figure


def _losses(result: Result) -> pd.Series:
    """Return the highest training and validation loss of any replicate, by epoch."""
    return result.curves.loc[result.curves["quantity"].str.endswith("_loss"), "high"]


def _top_of_losses(results: Sequence[Result]) -> float:
    """Return the end of the axis of the losses."""
    losses = pd.concat([_losses(result) for result in results])
    usual = float(losses.quantile(0.98))
    return 1.05 * (usual if losses.max() > 2 * usual else float(losses.max()))


def _families(axes: Axes, part: pd.DataFrame) -> None:
    """Draw the speedup of each family of runs as a line.

    A family without a run on one device begins at the serial run of its precision.
    """
    names = part["run"].map(family)
    factors = style.shifts(names.nunique())
    for factor, (words, rows) in zip(factors, part.groupby(names, sort=False), strict=True):
        drawn, first = look(rows["run"].iloc[0]), rows.iloc[0]
        if rows["devices"].min() > 1 and "," not in str(words):
            serial = f"serial{'_amp' if first['amp'] else ''}_1{first['device']}"
            rows = pd.concat([part[part["run"] == serial], rows])
        rows = rows.sort_values("devices")
        x, bars = rows["devices"] * factor, style.errors(*style.column_ends(rows, "speedup"))
        axes.errorbar(x, rows["speedup"], bars, **style.of_look(drawn, label=words, capsize=2))


def _devices(kind: str, part: pd.DataFrame) -> str:
    if part["stand_in"].any():
        return "CPU processes in place of GPUs"
    return "CPU processes" if kind == "cpu" else "GPUs"


def _finish(axes: Axes, rows: int, heights: np.ndarray, values: Any, names: list[str]) -> None:
    """Print the values at the bars' ends; both panels have ``rows`` rows, so bars are as thick."""
    for height, value in zip(heights, values, strict=True):
        place: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{value:,.0f}", (value, height), **place, size=7)
    axes.set_yticks(heights, names)
    count = len(names)
    axes.set(xlim=(0, 1.2 * max(values)), ylim=(count - rows - 0.6, count - 0.4))
    axes.grid(visible=False, axis="y")
