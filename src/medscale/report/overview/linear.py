"""The linear reference of a study in the report: its scores, and which runs do not beat it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table
from medscale.evaluate.bootstrap import score_interval
from medscale.report.names import label
from medscale.report.result.reading import Result, records

NAME, MAJORITY = "linear reference", "most frequent class"


@dataclass(frozen=True)
class Linear:
    """The files ``reference.json`` and ``reference.csv`` of a study."""

    summary: dict[str, Any]
    resamples: pd.DataFrame

    def score(self, metric: str) -> dict[str, Any]:
        """Return a metric's ``mean, low, high`` on the test images."""
        return dict(self.summary["metrics"]["test"][metric])


def read_linear(path: str | Path) -> Linear:
    """Read reference.json and reference.csv; MedscaleError when one is missing or damaged."""
    return Linear(read_json(path), read_table(Path(path).with_suffix(".csv")))


def differences(runs: Sequence[Result], linear: Linear) -> pd.DataFrame:
    """Subtract the reference's AUROC from each run's, on the same resamples of the patients.

    Raises MedscaleError when a run was evaluated on other test images than the reference.

    Returns:
        ``run, mean, low, high``; NaN where the AUROC is undefined.
    """
    rows = []
    base = linear.score("auroc")["mean"]
    for run in runs:
        if run.summary["bootstrap"]["paired_with"] != linear.summary["paired_with"]:
            raise MedscaleError(
                f"{run.folder} and the linear reference were evaluated on different test images; "
                "delete results/ and measured/ and run again"
            )
        mean = run.score("auroc")["mean"]
        gains = (run.resamples["auroc"] - linear.resamples["auroc"]).to_numpy()
        low, high = score_interval(gains, linear.summary["smallest_class"], lowest=-1.0)
        difference = np.nan if None in (mean, base) else mean - base
        rows.append({"run": run.name, "mean": difference, "low": low, "high": high})
    return pd.DataFrame(rows)


def rows(linear: Linear, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the table of results: the reference, then the most frequent class.

    Of the most frequent class of the training images, predicted for each image, only the accuracy
    is printed: of K classes its balanced accuracy is 1/K, and its AUROC 0.5.
    """
    scores = {m: linear.score(m) for m in metrics}
    own = {f"{m}_{key}": scores[m][key] for m in metrics for key in ("mean", "low", "high")}
    share = linear.summary["majority"]["share"]
    return [{"run": NAME} | own, {"run": MAJORITY, "accuracy_mean": share}]


def facts(runs: Sequence[Result], linear: Linear) -> dict[str, Any]:
    """Return the facts: method, scores, majority, and the runs that do not beat the reference.

    Of the latter, ``worse`` are those whose interval lies below zero, ``not_better`` the others.
    """
    table = differences(runs, linear)
    not_beaten = table[~(table["low"] > 0)]
    is_worse = not_beaten["high"] < 0
    return {
        **{key: linear.summary[key] for key in ("method", "majority")},
        "scores": linear.summary["metrics"]["test"],
        "not_beaten_by": _labelled(not_beaten),
        "worse": _labelled(not_beaten[is_worse]),
        "not_better": _labelled(not_beaten[~is_worse]),
    }


def _labelled(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"label": label(row["run"]), **{key: row[key] for key in ("mean", "low", "high")}}
        for row in records(table)
    ]
