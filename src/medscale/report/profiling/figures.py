"""Figures of profiled runs: time by kind, operators and kernels, memory, roofline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from medscale.measure.profiling.kinds import KINDS
from medscale.report import names as palette
from medscale.report import style
from medscale.report.names import GREY, Look, numbered_look
from medscale.report.profiling.reading import Profiled, by_name, run_name
from medscale.report.profiling.tables import IDLE

MOST = 10  # operators or kernels
STEPS = 3  # of which memory is drawn
LOOK_OF_KIND = {
    "convolution": (palette.BLUE, ""),
    "matmul": (palette.SKY, "////"),
    "normalization": (palette.GREEN, "\\\\\\\\"),
    "element-wise": (palette.YELLOW, ""),
    "pooling and reduction": (palette.ORANGE, "----"),
    "memory": (palette.PURPLE, "||||"),
    "optimizer": (palette.BLACK, ""),
    "communication": (palette.VERMILION, "xxxx"),
    "data": (palette.BROWN, "||||"),
    "other": ("#BBBBBB", "oo"),
    "idle": ("#FFFFFF", ""),
}
assert tuple(LOOK_OF_KIND) == KINDS
GROUPS = (  # title, whether of GPUs, table
    ("operators, CPU", False, "operators"),
    ("operators, by their kernels' time on the GPU", True, "operators"),
    ("GPU kernels", True, "kernels"),
)


def kinds(runs: Sequence[Profiled]) -> Figure:
    """Draw the milliseconds of a step by kind of operation, a bar for each run and rank.

    A diamond marks the time of a step without the profiler.
    """
    bars = [(run, rank) for run in runs for rank in range(run.ranks)]
    figure = style.new(1.15 + 0.27 * len(bars))
    axes = figure.subplots()
    border: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.4}
    for height, (run, rank) in enumerate(bars):
        start = 0.0
        seconds = run.kinds[run.kinds["rank"] == rank].set_index("kind")["seconds"]
        for kind, (colour, hatch) in LOOK_OF_KIND.items():
            width = 1e3 * float(seconds[kind])
            axes.barh(height, width, left=start, color=colour, hatch=hatch, **border)
            start += width
        plain = 1e3 * run.about["ranks"][rank]["seconds"]
        axes.plot(plain, height, "D", color="white", markeredgecolor="black")
    names = [run_name(run) + (f", rank {rank}" if run.ranks > 1 else "") for run, rank in bars]
    axes.set_yticks(range(len(bars)), names)
    axes.set(xlabel="milliseconds a step, under the profiler")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    idle = " or ".join(IDLE[cuda] for cuda in sorted({run.cuda for run in runs}))
    handles: list[Patch | Line2D] = [
        Patch(facecolor=colour, hatch=hatch, label=idle if kind == "idle" else kind, **border)
        for kind, (colour, hatch) in LOOK_OF_KIND.items()
    ]
    diamond: dict[str, Any] = {"color": "white", "markeredgecolor": "black", "linestyle": ""}
    handles.append(Line2D([], [], marker="D", **diamond, label="a step without the profiler"))
    style.legend_below(figure, handles)
    return figure


def operators(runs: Sequence[Profiled]) -> Figure:
    """Draw time, calls and mean duration of the operators or kernels that take most time."""
    groups = [
        (title, members, kind)
        for title, cuda, kind in GROUPS
        if (members := [run for run in runs if run.cuda == cuda])
    ]
    figure = style.new(0.55 + 2.25 * len(groups))
    rows = figure.subplots(len(groups), 3, squeeze=False)
    for (title, members, kind), panels in zip(groups, rows, strict=True):
        counts = "calls" if kind == "operators" and not members[0].cuda else "launches"
        _draw_operators(panels, runs, by_name(members, kind, MOST), counts)
        panels[0].set_title(title, loc="left")
    _draw_legend(figure, runs)
    return figure


def _draw_operators(panels: Any, runs: Sequence[Profiled], table: Any, counts: str) -> None:
    names = list(dict.fromkeys(table["name"]))
    units = {"milliseconds": "ms a step", "calls": f"{counts} a step"}
    units |= {"microseconds": "mean duration (µs)"}
    for panel, (column, unit) in zip(panels, units.items(), strict=True):
        for number, run in enumerate(runs):
            values = table[table["run"] == run.name].set_index("name")[column].reindex(names)
            shift = 0.6 * ((number + 0.5) / len(runs) - 0.5)  # so that none hides another
            heights, look = np.arange(len(names)) + shift, numbered_look(number)
            panel.plot(values, heights, look.marker, color=look.colour, markersize=4)
        panel.set(xscale="log", xlabel=unit, ylim=(len(names) - 0.5, -0.5))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        first = panel is panels[0]
        panel.set_yticks(range(len(names)), [style.shorten(n, 30) for n in names] if first else [])


def memory(runs: Sequence[Profiled]) -> Figure:
    """Draw the memory that PyTorch allocated over the first traced steps, a panel for each run."""
    rows, columns = style.grid(len(runs), 3)
    figure = style.new(0.4 + 1.75 * rows)
    panels = style.panels(figure, len(runs), columns)
    for number, (run, (axes,)) in enumerate(zip(runs, panels, strict=True)):
        axes.set_title(run_name(run), loc="left")
        if run.memory.empty:
            style.empty(axes, "not traced (profile.memory is off)")
            continue
        for rank in range(run.ranks):
            allocated, look = run.memory[run.memory["rank"] == rank], numbered_look(rank)
            points = 1e3 * allocated["seconds"], allocated["bytes"] / 2**20
            axes.plot(*points, color=look.colour, linestyle=look.line, linewidth=0.8)
        window = STEPS * 1e3 * max(rank["profiled_s"] for rank in run.about["ranks"])
        axes.set(xlabel="milliseconds", ylim=(0, None), xlim=(0, window))
        if number % columns == 0:
            axes.set_ylabel(f"MiB on the {'GPU' if run.cuda else 'host'}")
    ranks = max(run.ranks for run in runs)
    if ranks > 1:
        looks = [
            style.of_look(numbered_look(rank), marker="", label=f"rank {rank}")
            for rank in range(ranks)
        ]
        lines = [Line2D([], [], **look) for look in looks]
        figure.legend(handles=lines, loc="outside lower center", ncols=8)
    return figure


def roofline(runs: Sequence[Profiled]) -> Figure:
    """Draw FLOP/s of a device against FLOPs a byte, below the measured ceilings of its run.

    After Williams et al. (2009).
    """
    figure = style.new(2.5)
    axes = figure.subplots()
    points = [
        ((run.numbers.intensity, run.numbers.flops / run.numbers.seconds / run.ranks), p)
        for run, p in ((run, run.products()) for run in runs)
    ]
    intensities = [x for pair in points for x, _ in pair] + [run.numbers.ridge for run in runs]
    reach = np.array([min(intensities) / 4, max(intensities) * 4])
    for number, (run, (step, products)) in enumerate(zip(runs, points, strict=True)):
        look = numbered_look(number)
        _draw_roof(axes, run, reach, look)
        options: dict[str, Any] = {"color": look.colour, "markersize": 6}
        axes.plot(step[0], step[1] / 1e9, look.marker, **options)
        options["markerfacecolor"] = "white"
        axes.plot(products[0], products[1] / 1e9, look.marker, **options)
    axes.set(xscale="log", yscale="log", xlim=reach)
    axes.set(xlabel="FLOPs a byte (compulsory traffic of each operator)", ylabel="GFLOP/s a device")
    style.logarithmic(axes.xaxis)
    style.logarithmic(axes.yaxis)
    cover(axes)
    point: dict[str, Any] = {"marker": "o", "color": GREY, "linestyle": ""}
    explained = [
        Line2D([], [], label="whole step", **point),
        Line2D([], [], label="convolutions and products", markerfacecolor="white", **point),
        Line2D([], [], label="measured ceilings", color=GREY, linewidth=0.9),
    ]
    _draw_legend(figure, runs, explained, lines=True)
    return figure


def cover(axes: Axes) -> None:
    """Extend a logarithmic y axis to the values 1, 2 or 5 next to the data at both ends."""
    ends = axes.yaxis.get_data_interval()
    labelled = np.outer(10.0 ** np.arange(np.floor(np.log10(ends[0])), 20), (1, 2, 5)).ravel()
    low, high = labelled[labelled <= ends[0]].max(), labelled[labelled >= ends[1]].min()
    axes.set(ylim=(low, high))


def _draw_roof(axes: Axes, run: Profiled, reach: np.ndarray, look: Look) -> None:
    top, slope = run.numbers.ceiling_flops / run.ranks, run.numbers.ceiling_bytes / run.ranks
    corners = np.array([reach[0], run.numbers.ridge, reach[1]])
    roof = np.minimum(corners * slope, top) / 1e9
    axes.plot(corners, roof, color=look.colour, linestyle=look.line, linewidth=0.9)


def _draw_legend(
    figure: Figure, runs: Sequence[Profiled], further: Sequence[Line2D] = (), lines: bool = False
) -> None:
    """Explain the markers (and lines) of the runs, and ``further`` signs, below the figure."""
    handles = []
    for number, run in enumerate(runs):
        options = style.of_look(numbered_look(number), label=run_name(run))
        handles.append(Line2D([], [], **(options if lines else options | {"linestyle": ""})))
    style.legend_below(figure, [*handles, *further], ncols=3)
