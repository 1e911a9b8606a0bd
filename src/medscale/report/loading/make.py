"""The chapter loading: ways of loading images for training."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from medscale.measure.scaling.benchmarks import by_way
from medscale.report import measured as benchmark
from medscale.report import style
from medscale.report.writer import Pages

SIMPLE = "simple"  # the way that the others are compared with
UNITS = {
    "images_per_second": "images/s",
    "wait_ms": "wait for a batch (ms)",
    "gain": "images/s against simple",
}


def make(study: str, *, measured: str, about: str, reported: str) -> Pages:
    """Return figures, tables and facts; the arguments are those of ``measured.read``."""
    content = benchmark.read(study, measured, about, reported)
    table, labels = by_way(content.rows, SIMPLE), content.labels("way")
    published = content.reported.get("loader_speedup")
    return content.pages("loading", table, _figure(table, labels, published))


def _figure(table: pd.DataFrame, labels: dict[str, str], published: float | None) -> Figure:
    """Draw images a second, wait and gain by number of processes, a line for each way.

    ``published``: the reported gain, drawn as a dashed line.
    """
    figure = style.new(2.8)
    panels = dict(zip(UNITS, figure.subplots(1, 3), strict=True))
    benchmark.draw_lines(panels, table, "way", "processes", labels)
    for column, axes in panels.items():
        style.devices(axes, np.array(sorted(table["processes"].unique())), "processes")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = axes.get_ylim()
        steps = [step * 10.0**power for power in range(-3, 7) for step in (1, 2, 5)]
        inside = [step for step in steps if low <= step <= high]
        axes.set_yticks(inside if len(inside) < 8 else inside[::2])
        axes.set(ylabel=UNITS[column])
    if published is not None:
        options: dict[str, Any] = {"linestyle": "--", "label": f"reported: {published:g}"}
        panels["gain"].axhline(published, **options, **style.REFERENCE)
    benchmark.draw_legend(figure, panels["gain"], table)
    return figure
