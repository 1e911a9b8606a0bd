"""The chapter enhance: preprocessing images with several Dask workers."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from medscale.measure.scaling.benchmarks import by_workers
from medscale.report import measured as benchmark
from medscale.report import style
from medscale.report.names import SPLITS_IN_WORDS
from medscale.report.writer import Pages


def make(study: str, *, measured: str, about: str, reported: str) -> Pages:
    """Return figures, tables and facts; the arguments are those of ``measured.read``."""
    content = benchmark.read(study, measured, about, reported)
    table = by_workers(content.rows)
    return content.pages("enhance", table, _figure(table))


def _figure(table: pd.DataFrame) -> Figure:
    """Draw seconds and speedup by number of workers, a line for each split."""
    figure = style.new(2.7)
    panels = dict(zip(("seconds", "speedup"), figure.subplots(1, 2), strict=True))
    benchmark.draw_lines(panels, table, "split", "workers", SPLITS_IN_WORDS)
    counts = np.array(sorted({1, *table["workers"]}))
    for column, axes in panels.items():
        style.devices(axes, counts, "Dask workers")
        axes.set(ylabel=column)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    options: dict[str, Any] = {"linestyle": ":", "label": "ideal", "zorder": 1}
    panels["speedup"].plot(counts, counts, **options, **style.REFERENCE)
    benchmark.draw_legend(figure, panels["speedup"], table)
    return figure
