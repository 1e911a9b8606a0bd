"""Facts of the chapter enhance: what the paper says of it."""

from __future__ import annotations

import pandas as pd

from medscale.report.latex import number, significant
from medscale.report.result.reading import records


def values(table: pd.DataFrame) -> dict[str, str]:
    values = {}
    for row in records(table):
        key = f"{row['split']}/{row['workers']}"
        values[f"{key}/seconds"] = significant(row["seconds"])
        values[f"{key}/speedup"] = number(row["speedup"], 2)
        values[f"{key}/efficiency"] = number(row["efficiency"], 2)
    return values
