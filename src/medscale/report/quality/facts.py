"""Facts of the chapter on quality: results of the tests between runs, and the calibration."""

import math
from typing import Any

import pandas as pd

from medscale.evaluate.verdicts import ALPHA
from medscale.report.names import label
from medscale.report.quality.tables import shown_classes
from medscale.report.result.reading import Result, records

COLUMNS = ["run", "accuracy_p_holm", "auroc_p_holm"]
RATE_OF = ["by", "class", "wanted", "rate"]  # with "part", the keys of gaps.csv


def facts(baseline: Result, tests: pd.DataFrame, ensembles: pd.DataFrame) -> dict[str, Any]:
    """Return the facts of a study's tests and of its baseline's calibration.

    Args:
        tests: the table tests.csv, a row a comparison with the baseline.
        ensembles: the table ensemble.csv.
    """
    tests = tests.reindex(columns=COLUMNS)  # a study of one run has a table without columns
    accuracy = tests["accuracy_p_holm"].astype(float) < ALPHA
    auroc = tests["auroc_p_holm"].astype(float) < ALPHA
    return {
        "slope": _score(baseline, "calibration_slope"),
        "mcc": _score(baseline, "mcc"),
        "prevalence_stated": bool(baseline.operating["stated"].any()),
        "point": _point(baseline) if len(baseline.classes) == 2 else None,
        "useful": useful_thresholds(baseline.decision) if len(baseline.classes) == 2 else None,
        "apart_subgroups": subgroup_gaps(baseline.gaps),
        "temperature": baseline.summary["calibration"]["temperature"],
        "tests": len(tests),
        "significant": [label(run) for run in tests.loc[accuracy | auroc, "run"]],
        "undefined_subgroups": has_undefined_scores(baseline.subgroups),
        "subgroups": [by for by in dict.fromkeys(baseline.subgroups["by"]) if by != "all"],
        "ensembles": not ensembles.empty,
        "operating_classes": len(shown_classes(baseline.operating)),
    }


def has_undefined_scores(subgroups: pd.DataFrame) -> bool:
    """Return whether the figure of subgroups marks a score as undefined: that of a single class.

    Args:
        subgroups: subgroups.csv.
    """
    return bool(subgroups.loc[subgroups["metric"] == "auroc", "mean"].isna().any())


def _score(result: Result, metric: str) -> dict[str, Any] | None:
    """Return a metric's mean and interval; None where it is undefined."""
    score = result.score(metric)
    return None if score["mean"] is None else {end: score[end] for end in ("mean", "low", "high")}


def _point(result: Result) -> dict[str, Any] | None:
    """Return the first operating point of the positive class; None without validation images.

    A predictive value that no resample changes has no interval (NaN).
    """
    row = records(result.operating)[0]
    if row["ppv"] != row["ppv"]:
        return None
    scores = {
        name: {"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
        for name in ("ppv", "npv")
    }
    return {name: row[name] for name in ("wanted", "prevalence")} | scores


def useful_thresholds(table: pd.DataFrame) -> dict[str, Any] | None:
    """Return the thresholds at which the interval of the net benefit lies above both other rules.

    The other rules are to act always and never. ``ranges`` are the ends (``low, high``) of each
    run of neighbouring thresholds, ``count`` the number of thresholds in them. ``all, lowest,
    highest`` are number and ends of the thresholds examined. None without such a threshold.

    Args:
        table: decision.csv, rows of one class.
    """
    table = table.sort_values("threshold", ignore_index=True)
    above = table["low"] > table["treat_all"].clip(lower=0)
    if not above.any():
        return None
    thresholds = table.loc[above, "threshold"]
    neighbours = (~above).cumsum()[above]  # the same number for all thresholds of a range
    ranges = [
        {"low": float(part.min()), "high": float(part.max())}
        for _, part in thresholds.groupby(neighbours)
    ]
    ends = {"lowest": float(table["threshold"].min()), "highest": float(table["threshold"].max())}
    return {"ranges": ranges, "count": len(thresholds), "all": len(table)} | ends


def subgroup_gaps(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the subgroups whose gap to all other images has an interval without zero.

    Two subgroups that divide all images are one comparison, which is returned once, from the higher
    to the lower: ``other`` is the lower one, otherwise None.

    Args:
        table: gaps.csv.
    """
    apart = []
    for row in records(table[(table["gap_low"] > 0) | (table["gap_high"] < 0)]):
        other = _complement(table, row)
        if other is not None and row["gap"] < 0:
            continue  # the row of the other subgroup stands for this comparison
        gap = {name: row[name] for name in RATE_OF} | {"part": row["part"]}
        ends = {"mean": row["gap"], "low": row["gap_low"], "high": row["gap_high"]}
        apart.append(gap | {"other": None if other is None else other["part"]} | ends)
    return apart


def _complement(table: pd.DataFrame, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the row of gaps.csv of the subgroup that holds all other images, if there is one."""
    same = (table[RATE_OF] == pd.Series({name: row[name] for name in RATE_OF})).all(axis=1)
    counterparts = records(table[same & (table["part"] != row["part"])])
    is_mirrored = len(counterparts) == 1 and math.isclose(
        counterparts[0]["gap"], -row["gap"], abs_tol=1e-9
    )
    return counterparts[0] if is_mirrored else None
