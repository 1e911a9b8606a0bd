"""The chapter export: exported networks compared with PyTorch."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from medscale.base.text import latex
from medscale.measure.scaling.benchmarks import by_format
from medscale.report import measured as benchmark
from medscale.report import style
from medscale.report.latex import number, significant, span
from medscale.report.names import GREY, label
from medscale.report.result.reading import records
from medscale.report.tables import left, ranged, right
from medscale.report.tables import table as latex_table
from medscale.report.ways import WAYS
from medscale.report.writer import Pages

MARGIN = 0.5  # points of accuracy within which an export counts as harmless


def make(study: str, *, measured: str, about: str, reported: str) -> Pages:
    """Return figures, tables and facts; the arguments are those of ``measured.read``."""
    content = benchmark.read(study, measured, about, reported)
    table, labels = by_format(content.rows), content.labels("format")
    table = table.reset_index(drop=True)
    text = _table(table, labels, content.about["missing"])
    facts = _facts(content, table, labels)
    return content.pages("export", table, _figure(table, labels), text, facts)


def _facts(
    content: benchmark.Measured, table: pd.DataFrame, labels: dict[str, str]
) -> dict[str, Any]:
    """Return how the speeds on the CPU were measured, and those against eager PyTorch.

    ``seconds`` are the ends of the times of a pass over all ``images``.
    """
    rows = content.rows[content.rows["device"] == "cpu"]
    return {
        "batch": content.about["settings"]["batch_size"],
        "threads": content.about["machine"]["cpus"],
        "images": int(rows["images"].max()),
        "repeats": int(rows["repeat"].nunique()),
        "seconds": {"low": float(rows["seconds"].min()), "high": float(rows["seconds"].max())},
        "gains": benchmark.gains(table[table["device"] == "cpu"], "format", labels),
    }


def _name(row: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the label of a row's format, with its device unless that is the CPU."""
    return labels[row["format"]] + ("" if row["device"] == "cpu" else f", {row['device']}")


def _figure(table: pd.DataFrame, labels: dict[str, str]) -> Figure:
    """Draw the difference in accuracy, size, and images a second, a row for each export."""
    figure = style.new(0.9 + 0.24 * len(table))
    change, size, rate = figure.subplots(1, 3, sharey=True)
    several = table["run"].nunique() > 1
    names = [
        (f"{label(row['run'])}: " if several else "") + _name(row, labels) for row in records(table)
    ]
    for height, row in zip(style.rows(change, names), records(table), strict=True):
        look = WAYS[row["format"]]
        style.interval(change, height, (row["difference"], row["low"], row["high"]), look)
        size.plot(row["bytes"] / 1e6, height, look.marker, color=look.colour)
        ends = [row[f"images_per_second{end}"] for end in ("", "_low", "_high")]
        style.interval(rate, height, ends, look)
    change.axvspan(-MARGIN, MARGIN, color=GREY, alpha=0.2, linewidth=0)
    change.set_xlabel(f"accuracy less PyTorch's (points;\ngrey: within {MARGIN:g})")
    size.set(xlabel="file (MB)", xlim=(0, None))
    rate.set(xlabel="images/s", xlim=(0, None))
    return figure


def _table(table: pd.DataFrame, labels: dict[str, str], missing: dict[str, str]) -> str:
    """Return size, throughput and accuracy by run and format.

    ``missing``: devices that were to be measured and are not in the machine.
    """

    def unless_eager(row: dict[str, Any], text: str, eager: str = benchmark.NONE) -> str:
        return eager if row["format"] == "eager" else text

    def change(row: dict[str, Any]) -> str:
        return f"{number(row['difference'], 1)} ({span(row['low'], row['high'], 1)})"

    columns = [
        left("run", lambda row: "" if row["run"] == row["above"] else latex(label(row["run"]))),
        left("format", lambda row: latex(_name(row, labels))),
        right("size (MB)", lambda row: number(row["bytes"] / 1e6, 2)),
        right("images/s", lambda row: significant(row["images_per_second"])),
        right(
            r"speed against\\eager",
            lambda row: unless_eager(row, ranged(row, "gain", 2), eager="1"),
        ),
        right(r"accuracy\\(\%)", lambda row: number(row["accuracy"], 1)),
        right(r"difference\\(points)", lambda row: unless_eager(row, change(row))),
        right(r"answers\\changed", lambda row: unless_eager(row, f"{row['changed']:.0f}")),
    ]
    without = [["not measured", latex(f"ONNX, {name}"), *[benchmark.NONE] * 6] for name in missing]
    ends = table.groupby("run", sort=False).size().cumsum() - 1
    rows = records(table.assign(above=table["run"].shift()))
    return latex_table(rows, columns, further=without, rules_after=ends.tolist())
