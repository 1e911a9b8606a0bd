"""Facts of the chapter loading: what the paper says of it."""

from __future__ import annotations

import pandas as pd

from medscale.report.latex import number, significant
from medscale.report.result.reading import records


def values(table: pd.DataFrame) -> dict[str, str]:
    values = {"images": str(int(table["images"].max()))}
    for row in records(table):
        key = f"{row['way']}/{row['processes']}"
        values[f"{key}/images_per_second"] = significant(row["images_per_second"])
        values[f"{key}/wait_ms"] = significant(row["wait_ms"])
        values[f"{key}/gain"] = number(row["gain"], 2)
    return values
