"""The chapter enhance: preprocessing images with several Dask workers."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from medscale.measure.scaling.benchmarks import by_workers
from medscale.report import measured as benchmark
from medscale.report import style
from medscale.report.latex import number, significant
from medscale.report.names import SPLITS_IN_WORDS
from medscale.report.result.reading import records
from medscale.report.tables import left, ranged, right
from medscale.report.tables import table as latex_table
from medscale.report.writer import Pages


def make(study: str, *, measured: str, about: str, reported: str) -> Pages:
    """Return figures, tables and facts; the arguments are those of ``measured.read``."""
    content = benchmark.read(study, measured, about, reported)
    table = by_workers(content.rows)
    return content.pages("enhance", table, _figure(table), _table(table))


def _figure(table: pd.DataFrame) -> Figure:
    """Draw seconds, speedup and efficiency by number of workers, a line for each split."""
    figure = style.new(2.7)
    panels = dict(zip(("seconds", "speedup", "efficiency"), figure.subplots(1, 3), strict=True))
    benchmark.draw_lines(panels, table, "split", "workers", SPLITS_IN_WORDS)
    counts = np.array(sorted({1, *table["workers"]}))
    for column, axes in panels.items():
        style.devices(axes, counts, "Dask workers")
        axes.set(ylabel=column)
        if column != "efficiency":
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for column, ideal in (("speedup", counts), ("efficiency", np.ones(len(counts)))):
        options: dict[str, Any] = {"linestyle": ":", "label": "ideal", "zorder": 1}
        panels[column].plot(counts, ideal, **options, **style.REFERENCE)
    panels["efficiency"].set(ylim=(0, None))
    benchmark.draw_legend(figure, panels["speedup"], table)
    return figure


def _table(table: pd.DataFrame) -> str:
    columns = [
        left("split", lambda row: SPLITS_IN_WORDS[row["split"]]),
        right("images", lambda row: str(row["images"])),
        right("workers", lambda row: benchmark.processes(row["workers"], row["oversubscribed"])),
        right("seconds", lambda row: ranged(row, "seconds")),
        right("images/s", lambda row: significant(row["images_per_second"])),
        right("speedup", lambda row: ranged(row, "speedup", 2)),
        right(r"effi-\\ciency", lambda row: number(row["efficiency"], 2)),
        right(r"start-up\\(s)", lambda row: significant(row["startup_s"], 2)),
        right(r"memory a\\worker (MB)", lambda row: significant(row["peak_memory_mb"])),
    ]
    ends = table.groupby("split", sort=False).size().cumsum() - 1
    return latex_table(records(table), columns, rules_after=ends.tolist())
