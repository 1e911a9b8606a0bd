"""Table of the chapter convergence, as LaTeX."""

from typing import Any

import pandas as pd

from medscale.base.text import latex
from medscale.report.latex import number, p_value, significant
from medscale.report.result.reading import records
from medscale.report.tables import around, by_run, left, right, table
from medscale.report.units import time_unit

AT_LEAST = r"\ensuremath{\geq}"
BASELINE = "baseline"  # in place of a verdict
NONE = "--"


def convergence(rows: pd.DataFrame) -> str:
    """Return epochs, time and tests of each run; means over censored replicates are bounds."""
    factor, unit = time_unit(float(rows["seconds"].max()))
    baseline = rows[rows["verdict"] == BASELINE]
    unknown = bool((baseline["reached"] < baseline["replicates"]).any())
    columns = [
        left("run", by_run()),
        right(r"global\\batch", lambda row: str(row["global_batch"])),
        right(r"replicates\\that reach it", lambda row: f"{row['reached']} of {row['replicates']}"),
        right(r"epochs\\(mean)", lambda row: _bound(row) + number(row["epochs"], 1)),
        right(rf"{unit}\\(mean)", lambda row: _bound(row) + significant(row["seconds"] * factor)),
        right(r"difference in\\epochs (\%)", lambda row: _difference(row, unknown=unknown)),
        right(r"p: more\\epochs", lambda row: p_value(row["slower_p"])),
        right(r"p: fewer\\epochs", lambda row: p_value(row["faster_p"])),
        right(r"p: fewer\\(RCP)", lambda row: p_value(row["rcp_p"])),
        right(r"p: equal\\(margin)", lambda row: p_value(row["equal_p"])),
        left("verdict", lambda row: latex(row["verdict"])),
    ]
    return table(records(rows), columns)


def _bound(row: dict[str, Any]) -> str:
    return AT_LEAST if row["reached"] < row["replicates"] else ""


def _difference(row: dict[str, Any], *, unknown: bool) -> str:
    """Return the difference from the baseline; a bound if the run's mean is, and not the other's.

    Args:
        unknown: whether the baseline's mean is a bound.
    """
    if unknown or pd.isna(row["difference"]):
        return NONE
    return _bound(row) + around(row, "difference", 0, 100)
