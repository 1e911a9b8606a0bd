"""Target of a training (a value of a validation metric), and the cost of reaching it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.files import read_table
from medscale.engine.run import RunSpec

# Columns of history.csv that add up to an epoch's wall time.
SPENT = ("seconds", "validation_s", "checkpoint_s")
METRICS = {"val_accuracy": "validation accuracy", "val_loss": "validation loss"}
SMALLER_IS_BETTER = frozenset({"val_loss"})


@dataclass(frozen=True)
class Target:
    """The value of a validation metric that counts as reached."""

    metric: str  # a column of history.csv, one of ``METRICS``
    value: float  # NaN: no target, which nothing reaches

    @property
    def words(self) -> str:
        """The target in words: "validation accuracy of at least 93.1 %"."""
        if self.metric in SMALLER_IS_BETTER:
            return f"{METRICS[self.metric]} of at most {self.value:.3g}"
        return f"{METRICS[self.metric]} of at least {100 * self.value:.3g} %"

    def epoch(self, history: pd.DataFrame) -> int | None:
        """Return the first epoch, counted from 1, that reaches the target; None if none does."""
        values = history[self.metric].to_numpy(float)
        is_smaller = self.metric in SMALLER_IS_BETTER
        reached = values <= self.value if is_smaller else values >= self.value
        return int(reached.argmax()) + 1 if reached.any() else None

    def seconds(self, history: pd.DataFrame) -> float:
        """Return the seconds until the end of the first epoch that reaches the target.

        NaN if none does, or if another number of processes trained some of the epochs until then.

        ``history``: of a replicate, with the columns ``SPENT``, ``processes`` and the metric.
        """
        epoch = self.epoch(history)
        return float("nan") if epoch is None else seconds_of(history, epoch)


def read_history(path: str | Path) -> pd.DataFrame:
    """Read a replicate's history; MedscaleError where it is missing or damaged."""
    return read_table(path, "run the training again")


def best(metric: str, history: pd.DataFrame) -> float:
    """Return the best value of a metric over the epochs of a replicate."""
    values = history[metric]
    return float(values.min() if metric in SMALLER_IS_BETTER else values.max())


def target_of(
    reference: Sequence[pd.DataFrame], metric: str, value: float | None, share: float
) -> Target:
    """Return the target: a given value, or one that each replicate of the reference reaches.

    The latter is derived from the worst of the best values of the reference's replicates: its
    product with ``share``; of a loss, its quotient.

    Args:
        reference: histories of the baseline's replicates.
        metric: one of ``METRICS``.
        value: the value that counts as reached; None: derived from the reference.
        share: greater than 0 and at most 1.
    """
    if value is not None:
        return Target(metric, value)
    values = [best(metric, history) for history in reference]
    if metric in SMALLER_IS_BETTER:
        return Target(metric, max(values, default=float("nan")) / share)
    return Target(metric, min(values, default=float("nan")) * share)


def seconds_of(history: pd.DataFrame, epochs: int) -> float:
    """Return the wall time of the first epochs; NaN if the number of processes changed in them."""
    if history["processes"][:epochs].nunique() > 1:
        return float("nan")
    return float(history[list(SPENT)].to_numpy()[:epochs].sum())


def costs(
    summaries: Sequence[dict[str, Any]],
    histories: Mapping[str, Sequence[pd.DataFrame]],
    target: Target,
    prices: Mapping[str, float],
) -> pd.DataFrame:
    """Compute the cost of each run until the target, and as a whole.

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
        times = np.array([target.seconds(history) for history in histories[name]])
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
                "reached": sum(target.epoch(h) is not None for h in histories[name]),
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
