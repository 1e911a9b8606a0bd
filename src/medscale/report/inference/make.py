"""The chapter inference: ways of running a trained network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.base.text import amount
from medscale.measure.scaling.benchmarks import by_inference
from medscale.report import measured as benchmark
from medscale.report import style
from medscale.report.names import GREY, label
from medscale.report.result.reading import records
from medscale.report.ways import WAYS
from medscale.report.writer import Pages


def make(study: str, *, measured: str, about: str, reported: str) -> Pages:
    """Return figures, tables and facts; the arguments are those of ``measured.read``."""
    content = benchmark.read(study, measured, about, reported)
    table, labels = by_inference(content.rows), content.labels("way")
    published = content.reported.get("inference_images_per_second")
    figure = _figure(table, labels, published)
    return content.pages("inference", table, figure, facts=_facts(table, labels))


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
            panel.set_title(amount(count, "thread") if count else "GPU")
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
