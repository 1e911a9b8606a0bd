"""Result folders of a study, read back for figures, tables and the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.evaluate.bootstrap import interval

FILES = {
    "per_class": "per_class",
    "curves": "curves",
    "roc": "roc",
    "precision_recall": "pr",
    "reliability": "reliability",
    "operating": "operating",
    "confusions": "confusions",
    "subgroups": "subgroups",
    "resamples": "resamples",
}
TEXT = (
    "class",
    "metric",
    "quantity",
    "curve",
    "seed",
    "calibrated",
    "by",
    "part",
    "true",
    "predicted",
)


@dataclass(frozen=True)
class Result:
    """One run's result folder."""

    name: str
    folder: Path
    summary: dict[str, Any]
    per_class: pd.DataFrame
    curves: pd.DataFrame
    roc: pd.DataFrame
    precision_recall: pd.DataFrame
    reliability: pd.DataFrame
    operating: pd.DataFrame
    confusions: pd.DataFrame
    subgroups: pd.DataFrame
    resamples: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their codes."""
        return list(self.summary["classes"])

    @property
    def confusion(self) -> np.ndarray:
        """Counts of the test images summed over seeds, shape K,K, rows are the truth."""
        return np.array(self.summary["confusion"])

    @property
    def collapsed(self) -> bool:
        """Whether every test image was given the same class."""
        return bool((self.confusion.sum(axis=0) > 0).sum() == 1)

    @property
    def normalizes(self) -> bool:
        """Whether the network has batch normalization, told by the running statistics among its weights."""
        path = self.folder / f"seed{self.summary['seeds'][0]}.safetensors"
        try:
            with safe_open(path, "np") as weights:
                return any(name.endswith("running_mean") for name in weights.keys())  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise MedscaleError(
                f"{path} cannot be read ({error}); delete {self.folder} and run again"
            ) from None

    def score(self, metric: str, split: str = "test") -> dict[str, Any]:
        """A metric's ``mean, low, high, seed_sd, values``."""
        return dict(self.summary["metrics"][split][metric])


def read_result(folder: str | Path) -> Result:
    """Read a result folder.

    Raises:
        MedscaleError: when a file of it is missing or damaged.
    """
    folder = Path(folder)
    summary = read_json(folder / "summary.json")
    tables = {}
    for field, name in FILES.items():
        try:
            keep = dict.fromkeys(TEXT, str)
            tables[field] = pd.read_csv(
                folder / f"{name}.csv", dtype=keep, keep_default_na=False, na_values={}
            )
        except (OSError, ValueError) as error:
            raise MedscaleError(
                f"{folder / name}.csv cannot be read ({error}); delete {folder} and run again"
            ) from None
        for column in tables[field].columns.difference(list(TEXT)):
            tables[field][column] = pd.to_numeric(tables[field][column], errors="coerce")
    return Result(summary["run"]["name"], folder, summary, **tables)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows by column name."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def differences(results: Sequence[Result], baseline: str, metric: str = "accuracy") -> pd.DataFrame:
    """Difference of a metric from the baseline run, in percentage points, with a paired bootstrap interval.

    The same patients are drawn for both runs in each resample, so what both share cancels.

    Returns:
        ``run, mean, low, high``; NaN where the metric is undefined.

    Raises:
        MedscaleError: when the baseline has no result, or runs were evaluated on different test images.
    """
    by_name = {result.name: result for result in results}
    if baseline not in by_name:
        raise MedscaleError(
            f"the baseline {baseline} is not among the runs {', '.join(by_name)}; add it to `runs`"
        )
    base = by_name[baseline]
    rows = []
    for result in results:
        if result.summary["bootstrap"]["paired_with"] != base.summary["bootstrap"]["paired_with"]:
            raise MedscaleError(
                f"{result.name} and {baseline} were evaluated on different test images; delete results/ and run again"
            )
        ours, theirs = result.score(metric)["mean"], base.score(metric)["mean"]
        mean = np.nan if ours is None or theirs is None else 100 * (ours - theirs)
        low, high = interval(100 * (result.resamples[metric] - base.resamples[metric]).to_numpy())
        rows.append({"run": result.name, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)
