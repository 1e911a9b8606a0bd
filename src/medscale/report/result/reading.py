"""Result folders of classification runs, read back for figures, tables and facts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table
from medscale.evaluate.bootstrap import score_interval

# Columns that hold text, even where a class is named 1 or NA.
TEXT = ["class", "metric", "quantity", "curve", "seed", "calibrated", "by", "part", "true"]
TEXT += ["predicted", "rate", "classes"]


@dataclass(frozen=True)
class Result:
    """The result folder of a run; each table has the name of its CSV file."""

    name: str
    folder: Path
    summary: dict[str, Any]
    per_class: pd.DataFrame
    curves: pd.DataFrame
    roc: pd.DataFrame
    pr: pd.DataFrame  # precision and recall
    reliability: pd.DataFrame
    operating: pd.DataFrame
    decision: pd.DataFrame
    distribution: pd.DataFrame
    confusions: pd.DataFrame
    subgroups: pd.DataFrame
    gaps: pd.DataFrame
    resamples: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their codes."""
        return list(self.summary["classes"])

    @property
    def confusion(self) -> np.ndarray:
        """Counts of the test images summed over seeds, shape K,K; rows are the true classes."""
        return np.array(self.summary["confusion"])

    @property
    def collapsed(self) -> bool:
        """Whether all test images were predicted to be of the same class."""
        return bool((self.confusion.sum(axis=0) > 0).sum() == 1)

    @property
    def normalizes(self) -> bool:
        """Whether the network has batch normalization."""
        return bool(self.summary["batch_norm"])

    def score(self, metric: str, split: str = "test") -> dict[str, Any]:
        """Return a metric's ``mean, low, high, seed_sd, values``."""
        return dict(self.summary["metrics"][split][metric])


def read_result(folder: str | Path) -> Result:
    """Read a result folder; MedscaleError when a file of it is missing or damaged."""
    folder = Path(folder)
    summary = read_json(folder / "summary.json")
    names = [field.name for field in fields(Result) if field.type is pd.DataFrame]
    tables = {name: read_csv(folder / f"{name}.csv") for name in names}
    return Result(summary["run"]["name"], folder, summary, **tables)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of a result folder; MedscaleError when it is missing or damaged."""
    remedy = f"delete {path.parent} and run again"
    options = {"dtype": dict.fromkeys(TEXT, str), "keep_default_na": False, "na_values": {}}
    table = read_table(path, remedy, **options)
    for column in table.columns.difference(TEXT):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def in_format(result: Result, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table about one run with the columns ``run`` and ``format``."""
    return table.assign(run=result.name, format=result.summary["format"])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as dictionaries by column name."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def differences(results: Sequence[Result], baseline: str) -> pd.DataFrame:
    """Subtract the baseline's accuracy from each run's, with a paired bootstrap interval.

    Each resample draws the same patients for both runs, so that common variation cancels. Raises
    MedscaleError when the baseline has no result, or the runs' test images differ.

    Returns:
        ``run, mean, low, high`` in percentage points; zeros for the baseline.
    """
    by_name = {result.name: result for result in results}
    if baseline not in by_name:
        raise MedscaleError(
            f"the baseline {baseline} is not among the runs {', '.join(by_name)}; add it to `runs`"
        )
    base = by_name[baseline]
    rows = []
    for result in results:
        check_paired(result, base)
        mean, ends = 0.0, (0.0, 0.0)
        if result is not base:
            mean = result.score("accuracy")["mean"] - base.score("accuracy")["mean"]
            changes = (result.resamples["accuracy"] - base.resamples["accuracy"]).to_numpy()
            ends = score_interval(changes, base.summary["counts"]["test"]["groups"], lowest=-1.0)
        percent = (100 * value for value in (mean, *ends))
        rows.append({"run": result.name} | dict(zip(("mean", "low", "high"), percent, strict=True)))
    return pd.DataFrame(rows)


def check_paired(result: Result, other: Result) -> None:
    """Refuse results of different test images; MedscaleError naming both."""
    if result.summary["bootstrap"]["paired_with"] != other.summary["bootstrap"]["paired_with"]:
        raise MedscaleError(
            f"{result.name} and {other.name} were evaluated on different test images; delete "
            "results/ and run again"
        )
