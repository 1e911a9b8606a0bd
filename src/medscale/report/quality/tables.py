"""Tables of tests between runs, operating points, confusions and ensembles, as LaTeX."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.report.latex import number
from medscale.report.result.reading import Result, records
from medscale.report.tables import around, class_cell, left, right, table

FEW = 8  # classes up to which each has its operating points in the table
WORST = 5  # classes of the lowest sensitivity that have them otherwise
CALIBRATION = ("mcc", "calibration_slope", "calibration_intercept")


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


def calibration(results: Sequence[Result]) -> pd.DataFrame:
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
    return pd.DataFrame(rows)
