"""Tables of tests between runs, operating points, confusions and ensembles, as LaTeX."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.base.text import latex
from medscale.evaluate.paired import APART, APART_WITHIN, OPEN, SAME
from medscale.report.latex import number, p_value, span
from medscale.report.names import label
from medscale.report.result.reading import Result, records
from medscale.report.tables import (
    Column,
    around,
    by_run,
    class_cell,
    interval,
    left,
    right,
    scored,
    short_name,
    table,
)

FEW = 8  # classes up to which each has its operating points in the table
WORST = 5  # classes of the lowest sensitivity that have them otherwise
CONFUSIONS = 10
CALIBRATION = ("mcc", "calibration_slope", "calibration_intercept")
READINGS = {SAME: "equal", APART_WITHIN: "apart, within", APART: "apart", OPEN: "undecided"}
ENSEMBLES = {
    "replicates": "replicates of",
    "network": "all runs of",
    "all": "all runs and replicates",
}


def tests(comparisons: pd.DataFrame) -> str:
    """Return the comparison of each run with the baseline (``paired.compare``); p is adjusted."""
    columns = [
        left("run", by_run()),
        right(
            r"right in one alone\\run / baseline",
            lambda row: f"{row['only_run']} / {row['only_baseline']}",
        ),
        right(r"accuracy apart\\(points)", lambda row: around(row, "accuracy", 1)),
        right("p", lambda row: p_value(row["accuracy_p_holm"])),
        right(r"AUROC\\apart", lambda row: around(row, "auroc", 3)),
        right("p", lambda row: p_value(row["auroc_p_holm"])),
        left("accuracy is", lambda row: READINGS[row["reading"]]),
    ]
    return table(records(comparisons), columns, otherwise="no other run")


def operating(points: pd.DataFrame) -> str:
    """Return sensitivity and specificity at thresholds chosen on the validation images."""
    classes = points["class"].nunique()
    points_of_classes = points[points["class"].isin(shown_classes(points))]
    means = []
    for specificity, part in points.groupby("wanted") if classes > 1 else ():
        rates = [number(part[rate].mean(), 1, 100) for rate in ("sensitivity", "specificity")]
        means.append(
            ["mean over all classes", number(float(str(specificity)), 0, 100), "", "", *rates]
        )
    columns = [
        left("class", lambda row: class_cell(row["class"])),
        right(r"specificity in\\validation (\%)", lambda row: number(row["wanted"], 0, 100)),
        right("threshold", lambda row: number(row["threshold"], 3)),
        right(r"images of\\the class", lambda row: str(int(row["positives"]))),
        right(r"sensitivity\\(\%)", lambda row: around(row, "sensitivity", 1, 100)),
        right(r"specificity\\(\%)", lambda row: around(row, "specificity", 1, 100)),
    ]
    return table(
        records(points_of_classes), columns, further=means, rules_after=[len(points_of_classes) - 1]
    )


def shown_classes(points: pd.DataFrame) -> list[str]:
    """Return the classes of operating.csv that the table shows: of many, the least sensitive."""
    classes = list(dict.fromkeys(points["class"]))
    if len(classes) <= FEW:
        return classes
    first = points[points["wanted"] == points["wanted"].iloc[0]]
    return first.sort_values("sensitivity", kind="stable")["class"].head(WORST).tolist()


def calibration(results: Sequence[Result]) -> tuple[str, pd.DataFrame]:
    """Return MCC, calibration slope and intercept of each run, as trained and tempered."""
    rows = []
    for result in results:
        row: dict[str, Any] = {"run": result.name}
        for metric in CALIBRATION:
            for suffix in ("", "_calibrated"):
                score = result.summary["metrics"]["test"].get(metric + suffix, {})
                ends = {end: score.get(end) for end in ("mean", "low", "high")}
                row |= {f"{metric}{suffix}_{end}": value for end, value in ends.items()}
        rows.append(row)
    columns = [
        left("run", lambda row: short_name(label(row["run"]))),
        scored("MCC", "mcc", 2),
        scored(r"calibration\\slope", "calibration_slope", 2),
        scored(r"slope with the\\temperature", "calibration_slope_calibrated", 2),
        scored(r"calibration\\intercept", "calibration_intercept", 2),
        scored(r"intercept with the\\temperature", "calibration_intercept_calibrated", 2),
    ]
    return table(rows, columns), pd.DataFrame(rows)


def gaps(parts: pd.DataFrame, classes: Sequence[str]) -> str:
    """Return subgroups at the first operating point of ``classes``, and gaps to all others."""
    points = parts[parts["class"].isin(classes)]
    points = points[points["wanted"] == points["wanted"].min()]
    columns = [
        left("subgroup", lambda row: short_name(f"{row['by']}: {row['part']}")),
        left("class", lambda row: class_cell(row["class"]) if len(classes) > 1 else ""),
        left("rate", lambda row: row["rate"]),
        right("images", lambda row: str(row["images"])),
        right(r"value\\(\%)", lambda row: interval(row | {"mean": row["value"]}, 1, 100)),
        right(r"gap to all others\\(points)", lambda row: around(row, "gap", 1, 100)),
    ]
    return table(records(points), columns, otherwise="no subgroups")


def confusions(counts: pd.DataFrame) -> str:
    """Return the most frequent confusions: ``true, predicted, images, share``."""
    columns = [
        left("true class", lambda row: class_cell(row["true"])),
        left("taken for", lambda row: class_cell(row["predicted"])),
        Column("r", "images", lambda row: f"{row['images']:.4g}"),
        Column("r", r"of the class (\%)", lambda row: number(row["share"], 1, 100)),
    ]
    rows = records(counts.head(CONFUSIONS))
    return table(rows, columns, further=[] if rows else [["every image is right", "", "0", "0"]])


def ensemble(gains: pd.DataFrame) -> str:
    """Return the gains of averaging probabilities (``ensembles.ensembles``)."""
    columns = [
        left("mean probability of", lambda row: latex(_members(row["kind"], row["of"]))),
        right("members", lambda row: str(row["members"])),
        right(r"accuracy\\(\%)", lambda row: number(row["accuracy"], 1, 100)),
        right(r"gain in\\points", lambda row: _gain(row, "accuracy", 1, 100)),
        right(r"change of\\AUROC", lambda row: _gain(row, "auroc", 3)),
        right(r"change of\\log loss", lambda row: _gain(row, "nll", 4)),
    ]
    alone = [] if len(gains) else [["one network alone", "1", *["--"] * 4]]
    return table(records(gains), columns, further=alone)


def _members(kind: str, name: str) -> str:
    return f"{ENSEMBLES[kind]} {label(name) if kind == 'replicates' else name}".strip()


def _gain(row: dict[str, Any], metric: str, digits: int, scale: float = 1) -> str:
    gain, low, high = (row[f"{metric}_gain{end}"] for end in ("", "_low", "_high"))
    sign = "+" if round(gain * scale, digits) > 0 else ""
    return f"{sign}{number(gain, digits, scale)} ({span(low, high, digits, scale)})"
