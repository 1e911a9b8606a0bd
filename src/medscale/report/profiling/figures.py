"""Figures of profiled runs: time by kind, operators and kernels, memory, roofline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from medscale.measure.profiling.kinds import KINDS
from medscale.report import style
from medscale.report.names import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LOOKS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    Look,
)
from medscale.report.profiling.reading import Profiled, by_name, called

MOST = 10  # operators or kernels
FEW = 3  # steps of which memory is drawn
LOOK_OF_KIND = {
    "convolution": (BLUE, ""),
    "matmul": (SKY, "////"),
    "normalization": (GREEN, "\\\\\\\\"),
    "element-wise": (YELLOW, ""),
    "pooling and reduction": (ORANGE, "----"),
    "memory": (PURPLE, "...."),
    "optimizer": (BLACK, ""),
    "communication": (VERMILION, "xxxx"),
    "data": ("#8C510A", "||||"),
    "other": ("#BBBBBB", "oo"),
    "idle": ("#FFFFFF", ""),
}
assert tuple(LOOK_OF_KIND) == KINDS


@style.styled
def kinds(found: Sequence[Profiled]) -> Figure:
    """Milliseconds of a step by what they are spent on, a bar a run and rank; a diamond: without the profiler."""
    bars = [(one, rank) for one in found for rank in range(one.ranks)]
    figure = style.new(1.15 + 0.27 * len(bars))
    axes = figure.subplots()
    for place, (one, rank) in enumerate(bars):
        left = 0.0
        here = one.kinds[one.kinds["rank"] == rank].set_index("kind")["seconds"]
        for kind, (colour, hatch) in LOOK_OF_KIND.items():
            width = 1e3 * float(here[kind])
            axes.barh(
                place, width, left=left, color=colour, hatch=hatch, edgecolor="black", linewidth=0.4
            )
            left += width
        axes.plot(
            1e3 * one.about["ranks"][rank]["seconds"],
            place,
            "D",
            color="white",
            markeredgecolor="black",
        )
    names = [called(one) + (f", rank {rank}" if one.ranks > 1 else "") for one, rank in bars]
    axes.set_yticks(range(len(bars)), names)
    axes.set(xlabel="milliseconds a step, under the profiler")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    handles: list[Patch | Line2D] = [
        Patch(
            facecolor=colour,
            hatch=hatch,
            edgecolor="black",
            linewidth=0.4,
            label=_kind(kind, found),
        )
        for kind, (colour, hatch) in LOOK_OF_KIND.items()
    ]
    diamond = Line2D([], [], marker="D", color="white", markeredgecolor="black", linestyle="")
    diamond.set_label("a step without the profiler")
    figure.legend(
        handles=[*handles, diamond], loc="outside lower center", ncols=4, columnspacing=1.2
    )
    return figure


@style.styled
def operators(found: Sequence[Profiled]) -> Figure:
    """Time, calls and mean duration of the operators (and, of GPUs, kernels) that take most time, a marker a run."""
    bands = [
        (title, [one for one in found if one.cuda == cuda], what)
        for title, cuda, what in (
            ("operators, CPU", False, "operators"),
            ("operators, by their kernels' time on the GPU", True, "operators"),
            ("GPU kernels", True, "kernels"),
        )
        if any(one.cuda == cuda for one in found)
    ]
    figure = style.new(0.55 + 2.25 * len(bands))
    rows = figure.subplots(len(bands), 3, squeeze=False)
    for (title, runs, what), axes in zip(bands, rows, strict=True):
        table = by_name(runs, what, MOST)
        names = list(dict.fromkeys(table["name"]))
        counts = "calls" if what == "operators" and not runs[0].cuda else "launches"
        units = {
            "milliseconds": "ms a step",
            "calls": f"{counts} a step",
            "microseconds": "mean duration (µs)",
        }
        for panel, (column, unit) in zip(axes, units.items(), strict=True):
            for number, one in enumerate(found):
                here = table[table["run"] == one.name].set_index("name")[column].reindex(names)
                places = np.arange(len(names)) + 0.6 * (
                    (number + 0.5) / len(found) - 0.5
                )  # none hides another
                panel.plot(
                    here, places, _look(number).marker, color=_look(number).colour, markersize=4
                )
            panel.set(xscale="log", xlabel=unit, ylim=(len(names) - 0.5, -0.5))
            panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.set_yticks(
                range(len(names)),
                [] if panel is not axes[0] else [style.shorten(n, 30) for n in names],
            )
        axes[0].set_title(title, loc="left")
    _legend(figure, found)
    return figure


@style.styled
def memory(found: Sequence[Profiled]) -> Figure:
    """Memory that PyTorch allocated over the first traced steps, a panel a run, a line a rank."""
    rows, columns = style.grid(len(found), 3)
    figure = style.new(0.4 + 1.75 * rows)
    for number, (one, (axes,)) in enumerate(
        zip(found, style.panels(figure, len(found), columns), strict=True)
    ):
        axes.set_title(called(one), loc="left")
        if one.memory.empty:
            style.empty(axes, "not traced (profile.memory is off)")
            continue
        for rank in range(one.ranks):
            here, look = one.memory[one.memory["rank"] == rank], _look(rank)
            axes.plot(
                1e3 * here["seconds"],
                here["bytes"] / 2**20,
                color=look.colour,
                linestyle=look.line,
                linewidth=0.8,
            )
        shown = FEW * 1e3 * max(rank["profiled_s"] for rank in one.about["ranks"])
        axes.set(xlabel="milliseconds", ylim=(0, None), xlim=(0, shown))
        if number % columns == 0:
            axes.set_ylabel(f"MB on the {'GPU' if one.cuda else 'host'}")
    ranks = max(one.ranks for one in found)
    if ranks > 1:
        lines = [
            Line2D([], [], color=_look(r).colour, linestyle=_line(r), label=f"rank {r}")
            for r in range(ranks)
        ]
        figure.legend(handles=lines, loc="outside lower center", ncols=8)
    return figure


@style.styled
def roofline(found: Sequence[Profiled]) -> Figure:
    """FLOP/s against FLOPs a byte, of one device, below each run's measured ceilings (Williams et al. 2009)."""
    figure = style.new(2.5)
    axes = figure.subplots()
    points = [[(one.numbers.intensity, _rate(one)), one.products()] for one in found]
    across = np.array(
        [x for pair in points for x, _ in pair] + [one.numbers.ridge for one in found]
    )
    reach = np.array([across.min() / 4, across.max() * 4])
    for number, (one, (step, products)) in enumerate(zip(found, points, strict=True)):
        look, top = _look(number), one.numbers.ceiling_flops / one.ranks
        corner = np.array([reach[0], one.numbers.ridge, reach[1]])
        roof = np.minimum(corner * one.numbers.ceiling_bytes / one.ranks, top)
        axes.plot(corner, roof / 1e9, color=look.colour, linestyle=look.line, linewidth=0.9)
        axes.plot(step[0], step[1] / 1e9, look.marker, color=look.colour, markersize=6)
        axes.plot(
            products[0],
            products[1] / 1e9,
            look.marker,
            color=look.colour,
            markerfacecolor="white",
            markersize=6,
        )
    axes.set(xscale="log", yscale="log", xlim=reach)
    axes.set(xlabel="FLOPs a byte (compulsory traffic of each operator)", ylabel="GFLOP/s a device")
    style.logarithmic(axes.xaxis)
    style.logarithmic(axes.yaxis)
    _legend(
        figure,
        found,
        Line2D([], [], marker="o", color=GREY, linestyle="", label="whole step"),
        Line2D(
            [],
            [],
            marker="o",
            color=GREY,
            markerfacecolor="white",
            linestyle="",
            label="convolutions and products",
        ),
        Line2D([], [], color=GREY, linewidth=0.9, label="measured ceilings"),
        lines=True,
    )
    return figure


def _rate(one: Profiled) -> float:
    return one.numbers.flops / one.numbers.seconds / one.ranks


def _look(number: int) -> Look:
    return LOOKS[number % len(LOOKS)]


def _line(number: int) -> Any:
    return _look(number).line


def _kind(kind: str, found: Sequence[Profiled]) -> str:
    """What a kind is called in a legend: idle is no idleness on a CPU."""
    if kind != "idle":
        return kind
    devices = {one.cuda for one in found}
    return " or ".join(
        [
            *(["outside operators"] if False in devices else []),
            *(["no kernel"] if True in devices else []),
        ]
    )


def _legend(figure: Figure, found: Sequence[Profiled], *more: Line2D, lines: bool = False) -> None:
    """The runs' markers (and lines), and what else is told apart, below the figure."""
    runs = [
        Line2D(
            [],
            [],
            color=_look(n).colour,
            marker=_look(n).marker,
            linestyle=_line(n) if lines else "",
            label=called(one),
        )
        for n, one in enumerate(found)
    ]
    figure.legend(handles=[*runs, *more], loc="outside lower center", ncols=3, columnspacing=1.2)
