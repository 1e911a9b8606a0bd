"""Tables and numbers of what a study measures of its trained networks in use: exports, and how fast each way is."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from medscale.report.latex import escape, number, significant, span, stacked, tabular
from medscale.report.names import label
from medscale.report.overview.tables import with_range
from medscale.report.result.reading import records

WITHOUT = "--"


def export_table(table: pd.DataFrame, words: dict[str, str], missing: dict[str, str]) -> str:
    """Exports by run and format: size, throughput, accuracy and its difference from PyTorch.

    Args:
        table: as from ``scaling.by_format``.
        words: what each format is called.
        missing: devices that were asked for and are not here.
    """
    rows, rules = [], []
    for run, part in table.groupby("run", sort=False):
        for place, row in enumerate(records(part)):
            eager = row["format"] == "eager"
            change = f"{number(row['difference'], 1)} ({span(row['low'], row['high'], 1)})"
            rows.append(
                [
                    escape(label(str(run))) if place == 0 else "",
                    escape(words[row["format"]])
                    + ("" if row["device"] == "cpu" else f", {row['device']}"),
                    number(row["bytes"] / 1e6, 2),
                    significant(row["images_per_second"]),
                    "1" if eager else with_range(row["gain"], row["gain_low"], row["gain_high"], 2),
                    number(row["accuracy"], 1),
                    WITHOUT if eager else change,
                    WITHOUT if eager else str(int(row["changed"])),
                ]
            )
        rules.append(len(rows) - 1)
    rows += [["not measured", escape(f"ONNX, {name}"), *[WITHOUT] * 6] for name in missing]
    heads = (
        "MB",
        "images/s",
        r"against\\eager",
        r"accuracy\\(\%)",
        r"difference\\(points)",
        r"images\\changed",
    )
    return tabular(
        [("l", "run"), ("l", "format"), *[("r", stacked(head)) for head in heads]], rows, rules
    )


def inference_table(
    table: pd.DataFrame, words: dict[str, str], published: float | None, missing: dict[str, str]
) -> str:
    """Latency of single images and throughput of the largest batch by way and threads.

    Args:
        table: as from ``scaling.by_inference``.
        words: what each way is called.
        published: images a second that were reported.
        missing: ways and devices that were asked for and are not here.
    """
    rows, rules = [], []
    for _, part in table.groupby("run", sort=False):
        for (way, device, threads), here in part[part["way"] != "decode"].groupby(
            ["way", "device", "threads"], sort=False
        ):
            latency, most, whole = (
                _largest(here, kind) for kind in ("latency", "throughput", "decoded")
            )
            rows.append(
                [
                    escape(words[str(way)]) + ("" if device == "cpu" else f", {device}"),
                    str(threads or WITHOUT),
                    *[number(latency[f"{name}_ms"], 2) for name in ("p50", "p95", "p99")],
                    _gain(latency, str(way)),
                    significant(most["images_per_second"]),
                    _gain(most, str(way)),
                    significant(whole["images_per_second"]),
                ]
            )
        for row in records(part[part["way"] == "decode"]):
            blank = [WITHOUT] * 6
            rows.append(
                [
                    "decoding alone",
                    str(row["threads"]),
                    *blank,
                    significant(row["images_per_second"]),
                ]
            )
        rules.append(len(rows) - 1)
    rows += [
        [escape(f"{words.get(name, f'ONNX, {name}')}: not measured"), *[WITHOUT] * 8]
        for name in missing
    ]
    if published is not None:
        rows.append(["reported", *[WITHOUT] * 5, significant(published), *[WITHOUT] * 2])
    batch = int(table.loc[table["kind"] == "throughput", "batch"].max())
    heads = ["threads", r"p50\\(ms)", r"p95\\(ms)", r"p99\\(ms)", r"against\\eager"]
    heads += [rf"images/s\\batch {batch}", r"against\\eager", r"images/s\\decoded"]
    return tabular(
        [("l", "way of running"), *[("r", stacked(head)) for head in heads]], rows, rules
    )


def _gain(row: dict[str, Any], way: str) -> str:
    if way == "eager":
        return "1"
    return WITHOUT if math.isnan(row["gain"]) else number(row["gain"], 2)


def _largest(table: pd.DataFrame, kind: str) -> dict[str, Any]:
    """Return the row of a kind with the largest batch."""
    return records(table[table["kind"] == kind].sort_values("batch"))[-1]
