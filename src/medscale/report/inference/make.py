"""The chapter inference: ways of running a trained network."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.base.text import latex
from medscale.measure.scaling.benchmarks import by_inference
from medscale.report import measured as benchmark
from medscale.report import style
from medscale.report.latex import number, significant
from medscale.report.measured import NONE
from medscale.report.names import GREY, label
from medscale.report.result.reading import records
from medscale.report.tables import Column, left, right
from medscale.report.tables import table as latex_table
from medscale.report.ways import WAYS
from medscale.report.writer import Pages


def make(study: str, *, measured: str, about: str, reported: str) -> Pages:
    """Return figures, tables and facts; the arguments are those of ``measured.read``."""
    content = benchmark.read(study, measured, about, reported)
    table, labels = by_inference(content.rows), content.labels("way")
    published = content.reported.get("inference_images_per_second")
    figure = _figure(table, labels, published)
    text = _table(table, labels, published, content.about["missing"])
    return content.pages("inference", table, figure, text, _facts(table, labels))


def _facts(table: pd.DataFrame, labels: dict[str, str]) -> dict[str, Any]:
    """Return the speeds on the CPU against eager PyTorch, of the largest batch and most threads."""
    rows = table[(table["kind"] == "throughput") & (table["device"] == "cpu")]
    batch, threads = int(rows["batch"].max()), int(rows["threads"].max())
    rows = rows[(rows["batch"] == batch) & (rows["threads"] == threads)]
    return {
        "batch": batch,
        "threads": threads,
        "images": int(rows["images"].max()),
        "gains": benchmark.gains(rows, "way", labels),
    }


def _figure(table: pd.DataFrame, labels: dict[str, str], published: float | None) -> Figure:
    """Draw latency of single images and throughput by batch size, a row of panels for each run.

    ``published``: the reported images a second, drawn as a dashed line.
    """
    runs = list(dict.fromkeys(table["run"]))
    counts = table.loc[table["way"] == "eager", "threads"]
    threads = sorted(set(counts[counts > 0])) + [0] * bool((table["device"] != "cpu").any())
    ways = [way for way in labels if way in set(table["way"])]
    figure = style.new(0.7 + 2.2 * len(runs))
    axes = figure.subplots(len(runs), 1 + len(threads), squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        of_run = table[table["run"] == run]
        _draw_latency(row[0], of_run[of_run["kind"] == "latency"], ways, threads)
        for panel, count in zip(row[1:], threads, strict=True):
            batches = (of_run["kind"] == "throughput") & (of_run["threads"] == count)
            _draw_throughput(panel, of_run[batches], ways, published)
            panel.set_title(f"{count} thread{'s' * (count > 1)}" if count else "GPU")
        row[0].set_title(label(run) if len(runs) > 1 else "one image at a time")
    first = axes[0][0]
    for way in ways:
        first.plot([], [], **style.of_look(WAYS[way], label=labels[way]))
    if published is not None:
        words = f"reported: {published:g} images/s"
        first.plot([], [], color=GREY, linestyle="--", linewidth=0.8, label=words)
    style.legend_below(figure, *first.get_legend_handles_labels())
    return figure


def _draw_latency(
    axes: Axes, table: pd.DataFrame, ways: Sequence[str], threads: Sequence[int]
) -> None:
    """Draw the median, and a line to the 99th percentile, by way and number of threads."""
    for shift, way in zip(np.linspace(-0.25, 0.25, len(ways)), ways, strict=True):
        look = WAYS[way]
        for place, count in enumerate(threads):
            x = place + shift
            for row in records(table[(table["way"] == way) & (table["threads"] == count)]):
                ends = row["p50_ms"], row["p99_ms"]
                axes.plot([x, x], ends, color=look.colour, linewidth=0.9)
                axes.plot(x, ends[1], "_", color=look.colour)
                axes.plot(x, ends[0], look.marker, color=look.colour)
    words = [str(count) if count else "GPU" for count in threads]
    axes.set(xticks=range(len(threads)), xticklabels=words, xlim=(-0.5, len(threads) - 0.5))
    axes.set(xlabel="threads", ylabel="ms an image (bar: 99th percentile)")
    axes.set_yscale("log")
    style.logarithmic(axes.yaxis)
    axes.grid(False, axis="x")


def _draw_throughput(
    axes: Axes, table: pd.DataFrame, ways: Sequence[str], published: float | None
) -> None:
    """Draw images a second against batch size; a way has a line for each device."""
    for (way, _), rows in table[table["way"].isin(ways)].groupby(["way", "device"], sort=False):
        part = rows.sort_values("batch")
        ends, options = style.column_ends(part, "images_per_second"), style.of_look(WAYS[str(way)])
        axes.errorbar(part["batch"], ends[0], style.errors(*ends), capsize=2, **options)
    if published is not None:
        axes.axhline(published, linestyle="--", **style.REFERENCE)
    style.binary(axes, "x", sorted(set(table["batch"])))
    axes.set(xlabel="batch size", ylabel="images/s")
    axes.set_yscale("log")
    style.logarithmic(axes.yaxis)


def _table(
    table: pd.DataFrame, labels: dict[str, str], published: float | None, missing: dict[str, str]
) -> str:
    """Return latency of single images and throughput of the largest batch by way and threads.

    Args:
        published: the reported images a second.
        missing: ways and devices that were to be measured and are not in the machine.
    """
    rows: list[dict[str, Any]] = []
    rules = []
    for _, of_run in table.groupby("run", sort=False):
        networks = of_run[of_run["way"] != "decode"]
        for (way, device, form, threads), part in networks.groupby(
            ["way", "device", "format", "threads"], sort=False
        ):
            name = labels[str(way)] + ("" if device == "cpu" else f", {device}")
            kinds = {kind: _largest(part, kind) for kind in ("latency", "throughput", "decoded")}
            row = {"name": name, "way": way, "format": form, "threads": threads or NONE}
            rows.append(row | kinds)
        for row in records(of_run[of_run["way"] == "decode"]):
            alone = {"name": "decoding alone", "format": NONE, "threads": row["threads"]}
            rows.append(alone | {"decoded": row})
        rules.append(len(rows) - 1)
    further = [
        [latex(f"{labels.get(name, f'ONNX, {name}')}: not measured"), *[NONE] * 9]
        for name in missing
    ]
    if published is not None:
        further.append(["reported", *[NONE] * 6, significant(published), *[NONE] * 2])
    batch = int(table.loc[table["kind"] == "throughput", "batch"].max())
    columns = [
        left("way of running", lambda row: latex(row["name"])),
        left("format", lambda row: row["format"]),
        right("threads", lambda row: str(row["threads"])),
        *[_percentile(name) for name in ("p50", "p95", "p99")],
        right(r"against\\eager", lambda row: _gain(row, "latency")),
        right(
            rf"images/s\\batch {batch}",
            lambda row: significant(row.get("throughput", {}).get("images_per_second")),
        ),
        right(r"against\\eager", lambda row: _gain(row, "throughput")),
        right(r"images/s\\decoded", lambda row: significant(row["decoded"]["images_per_second"])),
    ]
    return latex_table(rows, columns, further=further, rules_after=rules)


def _percentile(name: str) -> Column:
    return right(rf"{name}\\(ms)", lambda row: number(row.get("latency", {}).get(f"{name}_ms"), 2))


def _largest(table: pd.DataFrame, kind: str) -> dict[str, Any]:
    """Return the row of a kind with the largest batch."""
    return records(table[table["kind"] == kind].sort_values("batch"))[-1]


def _gain(row: dict[str, Any], kind: str) -> str:
    if kind not in row:
        return NONE
    if row["way"] == "eager":
        return "1"
    gain = row[kind]["gain"]
    return NONE if math.isnan(gain) else number(gain, 2)
