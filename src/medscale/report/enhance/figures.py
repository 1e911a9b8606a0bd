"""Figures of what a study measures besides its runs; more processes than cores are drawn hollow."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, StrMethodFormatter

from medscale.report import style
from medscale.report.names import GREY, LOOKS, SPLITS_IN_WORDS

CROWDED = "more processes than cores"


@style.styled
def enhance(table: pd.DataFrame) -> Figure:
    """Seconds, speedup and efficiency of preprocessing by number of workers, a line a split.

    Args:
        table: as from ``scaling.by_workers``.
    """
    figure = style.new(2.7)
    panels = dict(zip(("seconds", "speedup", "efficiency"), figure.subplots(1, 3), strict=True))
    _lines(panels, table, "split", "workers", SPLITS_IN_WORDS)
    counts = np.array(sorted({1, *table["workers"]}))
    for column, axes in panels.items():
        _counts(axes, counts, "Dask workers")
        if column == "efficiency":
            axes.plot(
                counts, np.ones(len(counts)), color=GREY, linewidth=0.8, linestyle=":", zorder=1
            )
            axes.set(ylabel="efficiency", ylim=(0, None))
            continue
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set(ylabel=column)
    panels["speedup"].plot(
        counts, counts, color=GREY, linewidth=0.8, linestyle=":", label="ideal", zorder=1
    )
    _legend(figure, panels["speedup"], bool(table["oversubscribed"].any()))
    return figure


@style.styled
def loading(table: pd.DataFrame, labels: dict[str, str], published: float | None) -> Figure:
    """Images a second, wait for a batch and gain over simple loading by number of processes, a line a way.

    Args:
        table: as from ``scaling.by_way``.
        labels: what each way is called.
        published: the gain that was reported, drawn as a dashed line.
    """
    figure = style.new(2.8)
    panels = dict(zip(("images_per_second", "wait_ms", "gain"), figure.subplots(1, 3), strict=True))
    _lines(panels, table, "way", "processes", labels)
    units = {
        "images_per_second": "images/s",
        "wait_ms": "wait for a batch (ms)",
        "gain": "images/s against simple",
    }
    for column, axes in panels.items():
        _counts(axes, np.array(sorted(table["processes"].unique())), "processes")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = axes.get_ylim()
        steps = [one * 10.0**power for power in range(-3, 7) for one in (1, 2, 5)]
        inside = [step for step in steps if low <= step <= high]
        axes.set_yticks(inside if len(inside) < 8 else inside[::2])
        axes.set(ylabel=units[column])
    if published is not None:
        panels["gain"].axhline(
            published, color=GREY, linewidth=0.8, linestyle="--", label=f"reported: {published:g}"
        )
    _legend(figure, panels["gain"], bool(table["oversubscribed"].any()))
    return figure


def _lines(
    panels: dict[str, Axes], table: pd.DataFrame, by: str, count: str, words: dict[str, str]
) -> None:
    """In each panel a line a group, with ranges; the groups stand a little apart, so that none hides another."""
    groups = list(table.groupby(by, sort=False))
    for shift, look, (name, part) in zip(
        np.linspace(-0.05, 0.05, len(groups)), LOOKS, groups, strict=False
    ):
        for column, axes in panels.items():
            here = part[part[column].notna()].sort_values(count)
            bars = style.errors(
                *(here[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
            )
            places, solid = here[count] * 2**shift, here[~here["oversubscribed"]].index
            axes.errorbar(
                places, here[column], bars, color=look.colour, linestyle=look.line, capsize=2
            )
            for rows, face in ((solid, look.colour), (here.index.difference(solid), "white")):
                at = places[rows], here.loc[rows, column]
                axes.plot(*at, look.marker, color=look.colour, markerfacecolor=face)
            axes.plot(
                [], [], look.marker, color=look.colour, linestyle=look.line, label=words[str(name)]
            )


def _counts(axes: Axes, counts: np.ndarray, what: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set(xticks=counts, xlim=(counts[0] * 0.85, max(counts[-1], 2) * 1.18), xlabel=what)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, axes: Axes, crowded: bool) -> None:
    handles, words = axes.get_legend_handles_labels()
    if crowded:
        handles.append(
            Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="")
        )
        words.append(CROWDED)
    figure.legend(handles, words, loc="outside lower center", ncols=4, columnspacing=1.2)
