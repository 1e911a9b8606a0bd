"""Figures of trained networks in use: what an export changes, and how fast each way of running one is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from medscale.report import style
from medscale.report.names import GREY, LOOKS, label
from medscale.report.results import records
from medscale.serve.formats.registry import looks

# By way of running, the same in both figures.
LOOK = {name: LOOKS[number] for name, number in looks().items()}
MARGIN = 0.5  # points of accuracy within which an export is taken as harmless


@style.styled
def export(table: pd.DataFrame, words: dict[str, str]) -> Figure:
    """Difference in accuracy with its paired interval, size, and images a second, a line an export.

    Args:
        table: as from ``scaling.by_format``.
        words: what each format is called.
    """
    table = table.reset_index(drop=True)
    figure = style.new(0.9 + 0.24 * len(table))
    change, size, rate = figure.subplots(1, 3, sharey=True)
    places = np.arange(len(table))[::-1]
    for place, row in zip(places, records(table), strict=True):
        look = LOOK[row["format"]]
        ends = style.errors(*(np.array([row[name]]) for name in ("difference", "low", "high")))
        change.errorbar(
            row["difference"], place, xerr=ends, marker=look.marker, color=look.colour, capsize=2
        )
        size.plot(row["bytes"] / 1e6, place, look.marker, color=look.colour)
        rates = np.array(
            [
                [row["images_per_second"]],
                [row["images_per_second_low"]],
                [row["images_per_second_high"]],
            ]
        )
        rate.errorbar(
            rates[0],
            place,
            xerr=style.errors(*rates),
            marker=look.marker,
            color=look.colour,
            capsize=2,
        )
    change.axvspan(-MARGIN, MARGIN, color=GREY, alpha=0.2, linewidth=0)
    several = table["run"].nunique() > 1
    names = [
        words[row["format"]] + ("" if row["device"] == "cpu" else f", {row['device']}")
        for row in records(table)
    ]
    names = [
        f"{label(run)}: {name}" if several else name
        for run, name in zip(table["run"], names, strict=True)
    ]
    change.set(yticks=places, yticklabels=names, ylim=(-0.6, len(table) - 0.4))
    change.set_xlabel(f"accuracy less PyTorch's (points;\ngrey: within {MARGIN:g})")
    size.set(xlabel="file (MB)", xlim=(0, None))
    rate.set(xlabel="images/s", xlim=(0, None))
    return figure


@style.styled
def inference(table: pd.DataFrame, words: dict[str, str], published: float | None) -> Figure:
    """Latency of single images (median to 99th percentile) and throughput by batch size; a row of panels a run.

    Args:
        table: as from ``scaling.by_inference``.
        words: what each way is called.
        published: images a second that were reported, drawn as a dashed line.
    """
    runs, threads = (
        list(dict.fromkeys(table["run"])),
        sorted(set(table.loc[table["way"] == "eager", "threads"])),
    )
    figure = style.new(0.7 + 2.2 * len(runs))
    axes = figure.subplots(len(runs), 1 + len(threads), squeeze=False)
    ways = [way for way in words if way in set(table["way"])]
    for row, run in zip(axes, runs, strict=True):
        here = table[table["run"] == run]
        _latency(row[0], here[here["kind"] == "latency"], ways, threads)
        for panel, count in zip(row[1:], threads, strict=True):
            part = here[(here["kind"] == "throughput") & here["threads"].isin([count, 0])]
            _throughput(panel, part, ways, published)
            panel.set_title(f"{count} thread{'s' * (count > 1)}")
        row[0].set_title(label(run) if len(runs) > 1 else "one image at a time")
    for way in ways:
        look = LOOK[way]
        axes[0][0].plot(
            [], [], marker=look.marker, color=look.colour, linestyle=look.line, label=words[way]
        )
    if published is not None:
        of = f"reported: {published:g} images/s"
        axes[0][0].plot([], [], color=GREY, linestyle="--", linewidth=0.8, label=of)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        columnspacing=1.2,
    )
    return figure


def _latency(axes: Axes, table: pd.DataFrame, ways: list[str], threads: list[int]) -> None:
    """Median, and a line to the 99th percentile, by way and threads."""
    for shift, way in zip(np.linspace(-0.25, 0.25, len(ways)), ways, strict=True):
        for place, count in enumerate(threads):
            for row in records(table[(table["way"] == way) & (table["threads"] == count)]):
                at, look = place + shift, LOOK[way]
                axes.plot(
                    [at, at], [row["p50_ms"], row["p99_ms"]], color=look.colour, linewidth=0.9
                )
                axes.plot(at, row["p99_ms"], "_", color=look.colour)
                axes.plot(at, row["p50_ms"], look.marker, color=look.colour)
    axes.set(
        xticks=range(len(threads)),
        xticklabels=threads,
        xlabel="threads",
        xlim=(-0.5, len(threads) - 0.5),
    )
    axes.set(ylabel="ms an image (bar: 99th percentile)")
    axes.set_yscale("log")
    style.logarithmic(axes.yaxis)
    axes.grid(False, axis="x")


def _throughput(axes: Axes, table: pd.DataFrame, ways: list[str], published: float | None) -> None:
    """Images a second against batch size."""
    for way in ways:
        part, look = table[table["way"] == way].sort_values("batch"), LOOK[way]
        ends = style.errors(
            *(part[f"images_per_second{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        )
        values = part["batch"], part["images_per_second"]
        axes.errorbar(
            *values, ends, marker=look.marker, color=look.colour, linestyle=look.line, capsize=2
        )
    if published is not None:
        axes.axhline(published, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set(xticks=sorted(set(table["batch"])), xlabel="batch size", ylabel="images/s")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    style.logarithmic(axes.yaxis)
