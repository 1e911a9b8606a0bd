"""Cost of reaching a given accuracy: time, device-hours, energy and money of each run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.engine.run import RunSpec

# Columns of history.csv that add up to an epoch's wall time.
SPENT = ("seconds", "validation_s", "checkpoint_s")


def level(histories: Sequence[pd.DataFrame], share: float) -> float:
    """Return the target accuracy: a share of the replicates' mean best validation accuracy."""
    return share * float(np.mean([history["val_accuracy"].max() for history in histories]))


def seconds_to(history: pd.DataFrame, target: float) -> float:
    """Return the seconds until the end of the first epoch that reaches the target.

    NaN if none does, or if another number of processes trained some of the epochs until then.

    ``history``: of a replicate, with columns ``val_accuracy, seconds, validation_s, checkpoint_s,
    processes``.
    """
    reached = np.flatnonzero(history["val_accuracy"].to_numpy() >= target)
    if not len(reached) or history["processes"][: reached[0] + 1].nunique() > 1:
        return float("nan")
    return float(history[list(SPENT)].to_numpy()[: reached[0] + 1].sum())


def costs(
    summaries: Sequence[dict[str, Any]],
    histories: Mapping[str, Sequence[pd.DataFrame]],
    target: float,
    prices: Mapping[str, float],
) -> pd.DataFrame:
    """Compute the cost of each run until the target accuracy, and as a whole.

    Args:
        prices: price of a device-hour by backend (cpu, cuda).

    Returns:
        A row for each run: ``run, devices, stand_in, format, replicates, reached`` (replicates that
        reach the target), ``seconds, seconds_low, seconds_high`` (until the target; mean and
        range of these replicates), ``device_hours, money`` (until the target), ``whole_seconds,
        whole_device_hours, whole_money`` (of the training), ``energy_kwh`` (of the training; NaN if
        the devices do not measure it).
    """
    rows = []
    for summary in summaries:
        name, clock = summary["run"]["name"], summary["timing"]
        times = np.array([seconds_to(history, target) for history in histories[name]])
        measured = times[~np.isnan(times)]
        devices, price = RunSpec.parse(name).devices, prices[summary["backend"]]
        mean, low, high = (
            (float(measured.mean()), float(measured.min()), float(measured.max()))
            if len(measured)
            else (float("nan"),) * 3
        )
        # Not measured where a replicate went on with fewer devices.
        alike = all((history["processes"] == devices).all() for history in histories[name])
        whole = clock["wall_seconds"]["mean"] if alike else float("nan")
        energy = clock["energy_joules"]
        rows.append(
            {
                "run": name,
                "devices": devices,
                "stand_in": summary["marks"]["stand_in"],
                "format": summary["format"],
                "replicates": len(times),
                "reached": sum((h["val_accuracy"] >= target).any() for h in histories[name]),
                "seconds": mean,
                "seconds_low": low,
                "seconds_high": high,
                "device_hours": devices * mean / 3600,
                "money": price * devices * mean / 3600,
                "whole_seconds": whole,
                "whole_device_hours": devices * whole / 3600,
                "whole_money": price * devices * whole / 3600,
                "energy_kwh": energy["mean"] / 3.6e6 if energy is not None else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def frontier(table: pd.DataFrame) -> list[str]:
    """Return the runs that no other run beats in both time and money, from the fastest on.

    Only runs all of whose replicates reach the target count: a mean over the replicates that reach
    it would favour runs that reach it by chance.
    """
    if table.empty:
        return []
    reached = table[table["reached"] == table["replicates"]].sort_values(["seconds", "money"])
    kept: list[str] = []
    cheapest = float("inf")
    for run, money in zip(reached["run"], reached["money"], strict=True):
        if money < cheapest:
            kept.append(str(run))
            cheapest = money
    return kept
