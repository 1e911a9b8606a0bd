"""Facts of the chapter inference: what the paper says of it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from medscale.report.latex import number, significant
from medscale.report.result.reading import records


def values(table: pd.DataFrame) -> dict[str, str]:
    """Numbers of the paper, by ``<run>/<way>/<threads>/…``; of the CPU, throughput at the largest batch."""
    values = {}
    for (run, way, threads), here in table[table["device"] == "cpu"].groupby(
        ["run", "way", "threads"], sort=False
    ):
        if way == "decode":
            values[f"{run}/decode/{threads}/images_per_second"] = significant(
                here["images_per_second"].iloc[0]
            )
            continue
        latency, most = only(here, "latency"), only(here, "throughput")
        values[f"{run}/{way}/{threads}/p50"] = number(latency["p50_ms"], 2)
        values[f"{run}/{way}/{threads}/images_per_second"] = significant(most["images_per_second"])
        values[f"{run}/{way}/{threads}/gain"] = number(most["gain"], 2)
    return values


def only(table: pd.DataFrame, kind: str) -> dict[str, Any]:
    """The row of a kind, of the largest batch where there are several."""
    return records(table[table["kind"] == kind].sort_values("batch"))[-1]
