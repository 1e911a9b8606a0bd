"""What it costs to reach a given accuracy: time, device-hours, energy and money of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.engine.run import RunSpec

SPENT = (
    "seconds",
    "validation_s",
    "checkpoint_s",
)  # columns of history.csv that add up to an epoch's wall time


def level(histories: Sequence[pd.DataFrame], share: float) -> float:
    """The accuracy that counts as reached: a share of the mean, over replicates, of the best validation accuracy."""
    return share * float(np.mean([history["val_accuracy"].max() for history in histories]))


def seconds_to(history: pd.DataFrame, target: float) -> float:
    """Seconds until the end of the first epoch whose validation accuracy is the target or more; NaN if none is.

    Args:
        history: of one replicate, with columns ``val_accuracy, seconds, validation_s, checkpoint_s``.
        target: accuracy, 0 to 1.
    """
    reached = np.flatnonzero(history["val_accuracy"].to_numpy() >= target)
    if not len(reached):
        return float("nan")
    return float(history[list(SPENT)].to_numpy()[: reached[0] + 1].sum())


def costs(
    summaries: Sequence[dict[str, Any]],
    histories: Mapping[str, Sequence[pd.DataFrame]],
    target: float,
    prices: Mapping[str, float],
) -> pd.DataFrame:
    """What each run costs until the target accuracy, and as a whole.

    Args:
        summaries: contents of summary.json.
        histories: by run, history.csv of its replicates.
        target: validation accuracy.
        prices: money a device-hour by backend (cpu, cuda).

    Returns:
        A row a run: ``run, devices, stand_in, replicates, reached`` (replicates that reached the target), ``seconds,
        seconds_low, seconds_high`` (until then; mean and range of those that did), ``device_hours, money`` (likewise),
        ``whole_seconds, whole_device_hours, whole_money`` (the training), ``energy_kwh`` (of the whole training; NaN
        where the devices do not tell it).
    """
    rows = []
    for summary in summaries:
        name, clock = summary["run"]["name"], summary["timing"]
        times = np.array([seconds_to(history, target) for history in histories[name]])
        there = times[~np.isnan(times)]
        devices, price = RunSpec.parse(name).devices, prices[summary["backend"]]
        until = float(there.mean()) if len(there) else float("nan")
        whole, energy = clock["wall_seconds"]["mean"], clock["energy_joules"]
        rows.append(
            {
                "run": name,
                "devices": devices,
                "stand_in": summary["marks"]["stand_in"],
                "replicates": len(times),
                "reached": len(there),
                "seconds": until,
                "seconds_low": float(there.min()) if len(there) else float("nan"),
                "seconds_high": float(there.max()) if len(there) else float("nan"),
                "device_hours": devices * until / 3600,
                "money": price * devices * until / 3600,
                "whole_seconds": whole,
                "whole_device_hours": devices * whole / 3600,
                "whole_money": price * devices * whole / 3600,
                "energy_kwh": energy["mean"] / 3.6e6 if energy is not None else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def frontier(table: pd.DataFrame) -> list[str]:
    """Runs that no other beats in both time and money until the target, from the fastest on.

    Only runs all of whose replicates reach it: a mean over those that happened to would favour the others.
    """
    if table.empty:
        return []
    there = table[table["reached"] == table["replicates"]].sort_values(["seconds", "money"])
    kept: list[str] = []
    cheapest = float("inf")
    for run, money in zip(there["run"], there["money"], strict=True):
        if money < cheapest:
            kept.append(str(run))
            cheapest = money
    return kept
