"""The chapter formats: the same training in fp32, tf32, bf16 and fp16."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medscale.base.text import latex
from medscale.measure.scaling.benchmarks import by_number_format
from medscale.report import measured as benchmark
from medscale.report import style
from medscale.report.latex import number, significant
from medscale.report.measured import NONE
from medscale.report.names import label, numbered_look
from medscale.report.result.reading import records
from medscale.report.tables import left, ranged, right, wrapped
from medscale.report.tables import table as latex_table
from medscale.report.writer import Pages

PANELS = {
    "images_per_second": ("images/s", 1),
    "over_fp32": ("speed over fp32", 1),
    "accuracy": ("accuracy (%)", 100),
}


def make(study: str, *, measured: str, about: str, reported: str) -> Pages:
    """Return figures, tables and facts; the arguments are those of ``measured.read``."""
    content = benchmark.read(study, measured, about, reported)
    table = by_number_format(content.rows)
    text = _table(table, content.about["missing"])
    return content.pages("formats", table, _figure(table), text)


def _figure(table: pd.DataFrame) -> Figure:
    """Draw speed, gain over fp32 and accuracy, a row for each format."""
    figure = style.new(0.9 + 0.28 * len(table))
    panels = figure.subplots(1, len(PANELS), sharey=True)
    heights = style.rows(panels[0], table["format"].tolist())
    for axes, (column, (unit, scale)) in zip(panels, PANELS.items(), strict=True):
        for number_of_row, (height, row) in enumerate(zip(heights, records(table), strict=True)):
            ends = np.array([row[f"{column}{end}"] for end in ("", "_low", "_high")]) * scale
            if not np.isnan(ends).any():
                style.interval(axes, height, ends, numbered_look(number_of_row))
        axes.set(xlabel=unit)
    return figure


def _table(table: pd.DataFrame, missing: dict[str, str]) -> str:
    """Return speed, gains, memory, energy and accuracy; ``missing`` formats have their reasons."""
    base = table.loc[table["format"] == "fp32", "accuracy"]

    def difference(row: dict[str, Any]) -> str:
        return number(100 * (row["accuracy"] - base.item()), 1) if len(base) else NONE

    columns = [
        left("format", lambda row: row["format"]),
        wrapped("run", "4.4cm", lambda row: latex(label(row["run"]))),
        right("images/s", lambda row: ranged(row, "images_per_second")),
        right(r"speed over\\fp32", lambda row: ranged(row, "over_fp32", 2)),
        right(r"speed over\\tf32", lambda row: ranged(row, "over_tf32", 2)),
        right(r"memory of a\\device (MiB)", lambda row: significant(row["device_mb"])),
        right(r"whole energy\\an image (mJ)", lambda row: significant(row["millijoules"])),
        right(r"accuracy\\(\%)", lambda row: ranged(_percent(row), "accuracy", 1)),
        right(r"accuracy over\\fp32 (points)", difference),
        right("AUROC", lambda row: ranged(row, "auroc", 3)),
    ]
    further = [
        [name, latex(f"not measured: {reason}"), *[NONE] * (len(columns) - 2)]
        for name, reason in missing.items()
    ]
    return latex_table(records(table), columns, further=further)


def _percent(row: dict[str, Any]) -> dict[str, Any]:
    return {f"accuracy{end}": 100 * row[f"accuracy{end}"] for end in ("", "_low", "_high")}
