"""docs/gpu.md from docs/gpu.csv: speed of the engine and of other loops on the measured cards."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress

import pandas as pd

from medscale.engine.formats import FORMATS

HEAD = """# Measured on GPUs

Images a second of training: medians over rounds in which all ways take turns, with their range.
`make bench-gpu` measures the card at hand and writes this page and `docs/gpu.csv`. For cards in it,
the cost model takes the engine's rates and the shares of DDP and FSDP; `recipe.compile: auto`
decides by it whether compiling a network pays. If a card's line names another source than `make
bench-gpu`, those rows were measured without the engine.

- *engine*: a training as the workflow starts it, on random shards of the published size, with
  loading, augmentation, clipping and statistics. Its energy is that of the whole training.
- *plain loop*: forward, loss, backward and Adam (fused) on one synthetic batch in the card's
  memory.
- *roofline*: the time of a step at the measured ceilings of the card (matrix product in the format,
  triad), divided by the measured time. Bytes are those of single operators: code that fuses them
  can pass 100 %.
- *gaps*: share of the time in which no kernel runs.
- *data*: share of the time in which the engine waits for batches, after the first epoch.
- *of graph*: the rate divided by that of the plain loop whose whole step is a CUDA graph, compiled
  ones by the compiled one.
"""
GRAPHS = {"engine_compiled": "compiled_graph", "compiled": "compiled_graph"}
NONE = "–"


def page(table: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        table: docs/gpu.csv.
        titles: of the ways, in the order of the tables.
    """
    if table.empty:
        return HEAD + "\nNo card has been measured yet.\n"
    parts = [HEAD]
    for card, card_rows in table.groupby("card", sort=True):
        parts.append(f"\n## {card}\n\n{_origin(card_rows)}\n")
        for (network, size), rows in card_rows.groupby(["network", "size"], sort=True):
            parts.append(f"\n### {network}, {size} px\n\n{_table(rows, titles)}\n")
    return "".join(parts)


def _origin(rows: pd.DataFrame) -> str:
    """Return a line for each combination of driver, versions, date and source."""
    columns = ["driver", "torch", "cuda", "date", "source"]
    lines = [
        f"- driver {row.driver}, PyTorch {row.torch}, CUDA {row.cuda}; {row.date}; {row.source}"
        for row in rows[columns]
        .astype(object)
        .fillna("not recorded")
        .drop_duplicates()
        .itertuples()
    ]
    return "\n".join(lines)


def _table(rows: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Return a row for each batch size, format and way; columns without a value are left out."""
    heads = ["batch", "format", "way", "images/s (range)", "of graph", "peak MB", "J an image"]
    heads += ["roofline", "gaps", "data", "first step after"]
    table = []
    order = {way: place for place, way in enumerate(titles)}
    ordered = rows.assign(
        place=rows["way"].map(order), rank=rows["format"].map(list(FORMATS).index)
    ).sort_values(["batch", "rank", "place"])
    rows_in_order = ordered.to_dict("records")
    rates = {
        (row["batch"], row["format"], row["way"]): row["images_per_second"] for row in rows_in_order
    }
    for row in rows_in_order:
        graph = rates.get((row["batch"], row["format"], GRAPHS.get(row["way"], "graph")))
        cells = [str(row["batch"]), row["format"], titles.get(row["way"], row["way"])]
        if row["images_per_second"] != row["images_per_second"]:
            cells += [f"{NONE} ({row['note']})", *[NONE] * 7]
        else:
            rate, ends = row["images_per_second"], (row["low"], row["high"])
            spread = f" ({ends[0]:,.0f} to {ends[1]:,.0f})" if row["rounds"] > 1 else ""
            share = rate / graph if graph else float("nan")
            cells += [
                f"{rate:,.0f}{spread}",
                _cell(share, "{:.2f}"),
                _cell(row["peak_mb"], "{:,.0f}"),
                _cell(row["joules_image"], "{:.3f}"),
                _cell(row["roofline"], "{:.0%}"),
                _cell(row["gap"], "{:.0%}"),
                _cell(row["data"], "{:.1%}"),
                _cell(row["setup_s"], "{:.0f} s"),
            ]
        table.append(cells)
    has_value = [any(cells[place] != NONE for cells in table) for place in range(len(heads))]
    lines = [heads, ["---"] * len(heads), *table]
    return "\n".join("| " + " | ".join(compress(cells, has_value)) + " |" for cells in lines)


def _cell(value: float, form: str) -> str:
    return NONE if value != value else form.format(value)
