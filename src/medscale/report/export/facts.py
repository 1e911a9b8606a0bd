"""Facts of the chapter export: what the paper says of it."""

from __future__ import annotations

import pandas as pd

from medscale.report.latex import number, span
from medscale.report.result.reading import records


def values(table: pd.DataFrame) -> dict[str, str]:
    """Numbers of the paper, by ``<run>/<format>/…``; of the CPU."""
    values = {}
    for row in records(table[table["device"] == "cpu"]):
        key = f"{row['run']}/{row['format']}"
        values[f"{key}/megabytes"] = number(row["bytes"] / 1e6, 2)
        values[f"{key}/accuracy"] = number(row["accuracy"], 1)
        values[f"{key}/difference"] = number(row["difference"], 1)
        values[f"{key}/difference/interval"] = span(row["low"], row["high"], 1)
        values[f"{key}/images"] = str(int(row["images"]))
    return values
