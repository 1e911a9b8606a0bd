"""Target of a training (a value of a validation metric), and the cost of reaching it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.files import read_table
from medscale.base.provenance import was_moved
from medscale.engine.epochs import timed_epochs
from medscale.engine.run import RunSpec

# Columns of history.csv that add up to an epoch's wall time.
WALL_TIME_COLUMNS = ("seconds", "validation_s", "checkpoint_s")
METRICS = {"val_accuracy": "validation accuracy", "val_loss": "validation loss"}
SMALLER_IS_BETTER = frozenset({"val_loss"})


@dataclass(frozen=True)
class Target:
    """The value of a validation metric that a training is to reach."""

    metric: str  # a column of history.csv, one of ``METRICS``
    value: float  # NaN: no target; no training reaches it

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
        is_reached = values <= self.value if is_smaller else values >= self.value
        return int(is_reached.argmax()) + 1 if is_reached.any() else None

    def seconds(self, history: pd.DataFrame, devices: int) -> float:
        """Return the seconds until the end of the first epoch that reaches the target.

        NaN if no epoch does, or if an epoch until then did not run on all devices.

        Args:
            history: history.csv of a replicate.
            devices: number of devices of the run's name.
        """
        epoch = self.epoch(history)
        return float("nan") if epoch is None else seconds_of(history, epoch, devices)


def read_history(path: str | Path) -> pd.DataFrame:
    """Read a replicate's history.csv.

    Raises:
        MedscaleError: when the file is missing or damaged.
    """
    return read_table(path, "run the training again")


def best(metric: str, history: pd.DataFrame) -> float:
    """Return the best value of a metric over the epochs of a replicate."""
    values = history[metric]
    return float(values.min() if metric in SMALLER_IS_BETTER else values.max())


def target_of(
    reference: Sequence[pd.DataFrame], metric: str, value: float | None, share: float
) -> Target:
    """Return the target: a given value, or one that each replicate of the reference reaches.

    A derived target starts from the best value of each replicate of the reference, and takes the
    worst of these. An accuracy is multiplied by ``share``; a loss is divided by it.

    Args:
        reference: histories of the baseline's replicates.
        metric: one of ``METRICS``.
        value: the target; None: derive it from the reference.
        share: factor of a derived target, greater than 0 and at most 1.
    """
    if value is not None:
        return Target(metric, value)
    values = [best(metric, history) for history in reference]
    worst = max if metric in SMALLER_IS_BETTER else min
    return Target(metric, worst(values, default=float("nan")) * factor_of(metric, share))


def factor_of(metric: str, share: float) -> float:
    """Return the factor from the best values of the reference to a derived target.

    The arguments are those of ``target_of``. A loss is allowed to be larger.
    """
    return 1 / share if metric in SMALLER_IS_BETTER else share


def seconds_of(history: pd.DataFrame, epochs: int, devices: int) -> float:
    """Return the seconds of the first epochs; NaN unless all ran on the run's devices.

    The devices are those of ``epochs.timed_epochs``: their number and their hardware.
    """
    rows = history[:epochs]
    is_timed = rows.index.isin(timed_epochs(history, devices).index)
    if not is_timed.all() or (rows["processes"] != devices).any():
        return float("nan")
    return float(rows[list(WALL_TIME_COLUMNS)].to_numpy().sum())


def whole_seconds(summary: Mapping[str, Any]) -> float:
    """Return the mean wall time of a run's replicates, in seconds.

    NaN if a replicate was continued on fewer devices than the run's name has, or on other hardware.
    """
    if any(was_moved(record) for record in summary["provenance"]["replicates"]):
        return float("nan")
    clock, devices = summary["timing"], RunSpec.parse(summary["run"]["name"]).devices
    wall, on_devices = clock["wall_seconds"]["mean"], clock["device_seconds"]["mean"]
    return float(wall) if math.isclose(on_devices, devices * wall) else float("nan")


def costs(
    summaries: Sequence[dict[str, Any]],
    histories: Mapping[str, Sequence[pd.DataFrame]],
    target: Target,
    prices: Mapping[str, float],
) -> pd.DataFrame:
    """Compute the cost of each run until the target, and as a whole.

    Args:
        summaries: content of summary.json of each run.
        histories: history.csv of each replicate, by run.
        target: value of a validation metric.
        prices: price of a device-hour by backend (cpu, cuda).

    Returns:
        One row for each run: ``run, devices, stand_in, format, replicates, reached`` (number of
        replicates that reach the target). ``seconds, seconds_low, seconds_high`` (mean and range
        over these replicates), ``device_hours`` and ``money`` are those until the target. They are
        NaN without such a replicate, and if one of them reached it on fewer devices.
        ``whole_seconds, whole_device_hours, whole_money`` and ``energy_kwh`` are those of the whole
        training. Its seconds are NaN if a replicate continued with fewer devices, and its energy if
        the devices do not measure it.
    """
    return pd.DataFrame(
        [
            _cost(summary, histories[summary["run"]["name"]], target, prices[summary["backend"]])
            for summary in summaries
        ]
    )


def _cost(
    summary: dict[str, Any], histories: Sequence[pd.DataFrame], target: Target, price: float
) -> dict[str, Any]:
    """Return the row of one run; ``price`` is that of a device-hour."""
    name, clock = summary["run"]["name"], summary["timing"]
    devices = RunSpec.parse(name).devices
    reaching = [history for history in histories if target.epoch(history) is not None]
    times = np.array([target.seconds(history, devices) for history in reaching] or [float("nan")])
    mean = float(times.mean())
    whole_hours = clock["device_seconds"]["mean"] / 3600
    energy = clock["energy_joules"]
    return {
        "run": name,
        "devices": devices,
        "stand_in": summary["marks"]["stand_in"],
        "format": summary["format"],
        "replicates": len(histories),
        "reached": len(reaching),
        "seconds": mean,
        "seconds_low": float(times.min()),
        "seconds_high": float(times.max()),
        "device_hours": devices * mean / 3600,
        "money": price * devices * mean / 3600,
        "whole_seconds": whole_seconds(summary),
        "whole_device_hours": whole_hours,
        "whole_money": price * whole_hours,
        "energy_kwh": energy["mean"] / 3.6e6 if energy is not None else float("nan"),
    }


def frontier(table: pd.DataFrame) -> list[str]:
    """Return the runs that no other run beats in both time and money, from the fastest on.

    A run counts only if all its replicates reach the target, on all its devices. A mean over the
    successful replicates alone would favour runs that reach the target by chance.
    """
    if table.empty:
        return []
    complete_runs = table[table["reached"] == table["replicates"]].sort_values(["seconds", "money"])
    best_runs: list[str] = []
    cheapest = float("inf")
    for run, money in zip(complete_runs["run"], complete_runs["money"], strict=True):
        if money < cheapest:
            best_runs.append(str(run))
            cheapest = money
    return best_runs
