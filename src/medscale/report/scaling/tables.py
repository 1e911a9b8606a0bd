"""Tables of the scaling analysis: speedup by series, fitted laws, cost until the target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.text import latex
from medscale.measure.scaling.laws import Value
from medscale.measure.scaling.series import Series
from medscale.report.latex import significant
from medscale.report.result.reading import records
from medscale.report.tables import by_run, left, right, table
from medscale.report.units import money_unit, time_unit

KEPT = ("global", "per_device", "other", "")  # which batch a series keeps; order of the table
LAWS = {"amdahl": "Amdahl", "gustafson": "Gustafson", "usl": "USL"}
CHOSEN = r"\textsuperscript{*}"


def series(several: Sequence[Series]) -> pd.DataFrame:
    """Return speedup and efficiency of each series by number of devices, with intervals."""
    parts = [
        line.table().assign(series=line.name, held=line.constant_batch, stand_in=line.stand_in)
        for line in sorted(several, key=lambda line: KEPT.index(line.constant_batch))
    ]
    empty = pd.DataFrame({"series": [], "held": [], "run": []})
    return pd.concat(parts, ignore_index=True) if parts else empty


def laws(sources: Mapping[str, Sequence[Series]]) -> pd.DataFrame:
    """Return the laws fitted to each series with enough numbers of devices.

    ``sources``: series by where they come from: ours, published.
    """
    return pd.DataFrame(
        [
            row
            for source, several in sources.items()
            for line in several
            for row in _law_records(source, line)
        ]
    )


def cost(
    costs: pd.DataFrame, best: Sequence[str], currency: str, timings: Mapping[str, dict[str, Any]]
) -> str:
    """Return a table with, for each run, time and cost until the target and the whole duration.

    ``timings``: ``timing`` of summary.json by run.
    """
    until, until_unit = time_unit(largest(costs, "seconds"))
    whole, whole_unit = time_unit(largest(costs, "whole_seconds"))
    used, used_unit = time_unit(3600 * largest(costs, "device_hours"))
    price, sum_unit = money_unit(largest(costs, "money"), currency)
    money = latex(sum_unit).replace(" for ", r"\\ for ")
    run_cell = by_run()

    def run(row: dict[str, Any]) -> str:
        return run_cell(row) + (CHOSEN if row["run"] in best else "")

    def mean(row: dict[str, Any], quantity: str) -> str:
        return significant(timings[row["run"]][quantity]["mean"])

    def device_time(row: dict[str, Any]) -> str:
        return significant(row["device_hours"] * 3600 * used)

    columns = [
        left("run", run),
        right(r"s an\\epoch", lambda row: mean(row, "seconds_per_epoch")),
        right("images/s", lambda row: mean(row, "images_per_second")),
        right(r"replicates\\at target", lambda row: f"{row['reached']} of {row['replicates']}"),
        right(rf"{until_unit}\\to target", lambda row: significant(row["seconds"] * until)),
        right(rf"device-{used_unit}\\to target", device_time),
        right(rf"{money}\\to target", lambda row: significant(row["money"] * price, 2)),
        right(rf"whole\\{whole_unit}", lambda row: significant(row["whole_seconds"] * whole)),
        right(r"energy\\(kWh)", lambda row: significant(row["energy_kwh"])),
    ]
    return table(records(costs), columns)


def largest(costs: pd.DataFrame, *columns: str) -> float:
    """Return the largest finite value of some columns, 0 without any."""
    values = costs[list(columns)].to_numpy(float)
    return float(max(values[np.isfinite(values)], default=0))


def _law_records(source: str, line: Series) -> list[dict[str, Any]]:
    chosen = line.law()
    base = {
        "source": source,
        "series": line.name,
        "held": line.constant_batch,
        "stand_in": line.stand_in,
    }
    base["devices"] = " ".join(str(point.spec.devices) for point in line.points)
    rows: list[dict[str, Any]] = []
    for fit in line.laws().values():
        row = base | {"law": fit.law}
        for name in ("serial", "crosstalk", "best", "half"):
            value: Value = getattr(fit, name)
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        preferred = chosen is not None and fit.law == chosen.law
        rows.append(row | {"error": fit.error, "aicc": fit.aicc, "preferred": preferred})
    return rows or [{**base, "law": "", "preferred": False}]
