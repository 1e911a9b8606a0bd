"""Facts of the chapter on quality: results of the tests between runs, and the calibration."""

from typing import Any

import pandas as pd

from medscale.evaluate.paired import APART, APART_WITHIN, OPEN, SAME
from medscale.report.names import label
from medscale.report.quality.tables import shown_classes
from medscale.report.result.reading import Result, records

READINGS = {"equal": SAME, "apart_within": APART_WITHIN, "apart": APART, "undecided": OPEN}
COLUMNS = ["run", "reading", "accuracy_p_holm", "auroc_p_holm"]
ALPHA = 0.05


def facts(
    baseline: Result, tests: pd.DataFrame, ensembles: pd.DataFrame, margin: float
) -> dict[str, Any]:
    """Return the facts of a study's tests and of its baseline's calibration.

    Args:
        tests: the table tests.csv, a row a comparison with the baseline.
        ensembles: the table ensemble.csv.
        margin: largest difference in accuracy that counts as equal, in percentage points.
    """

    def labels(chosen: pd.Series) -> list[str]:
        return [label(run) for run in tests.loc[chosen, "run"]]

    tests = tests.reindex(columns=COLUMNS)  # a study of one run has a table without columns
    accuracy = tests["accuracy_p_holm"].astype(float) < ALPHA
    auroc = tests["auroc_p_holm"].astype(float) < ALPHA
    differs = tests["reading"].isin([APART_WITHIN, APART])
    return {
        "slope": _score(baseline, "calibration_slope"),
        "mcc": _score(baseline, "mcc"),
        "prevalence_stated": bool(baseline.operating["stated"].any()),
        "point": _point(baseline) if len(baseline.classes) == 2 else None,
        "useful": _useful(baseline) if len(baseline.classes) == 2 else None,
        "apart_subgroups": _gaps_without_zero(baseline.gaps),
        "temperature": baseline.summary["calibration"]["temperature"],
        "margin": margin,
        "tests": len(tests),
        "readings": {key: labels(tests["reading"] == words) for key, words in READINGS.items()},
        "significant": labels(accuracy | auroc),
        "interval_alone": labels(differs & ~accuracy),
        "subgroups": [by for by in dict.fromkeys(baseline.subgroups["by"]) if by != "all"],
        "ensembles": not ensembles.empty,
        "operating_classes": len(shown_classes(baseline.operating)),
    }


def _score(result: Result, metric: str) -> dict[str, Any] | None:
    """Return a metric's mean and interval; None where it is undefined."""
    score = result.score(metric)
    return None if score["mean"] is None else {end: score[end] for end in ("mean", "low", "high")}


def _point(result: Result) -> dict[str, Any] | None:
    """Return the first operating point of the positive class; None without validation images."""
    row = records(result.operating)[0]
    if row["ppv"] != row["ppv"]:
        return None
    scores = {
        name: {"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
        for name in ("ppv", "npv")
    }
    return {name: row[name] for name in ("wanted", "prevalence")} | scores


def _useful(result: Result) -> dict[str, float] | None:
    """Return the threshold probabilities at which acting by the network is best.

    There the interval of its net benefit lies above both rules without a test. ``low`` and
    ``high`` are the lowest and the highest, ``count`` of ``all`` their number; None for none.
    """
    table = result.decision
    best = table[table["low"] > table["treat_all"].clip(lower=0)]["threshold"]
    if best.empty:
        return None
    ends = {"low": float(best.min()), "high": float(best.max())}
    return ends | {"count": len(best), "all": len(table)}


def _gaps_without_zero(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the subgroups whose gap to all other images has an interval without zero."""
    rows = table[(table["gap_low"] > 0) | (table["gap_high"] < 0)]
    names = ["by", "part", "class", "wanted", "rate"]
    return [
        {name: row[name] for name in names}
        | {"mean": row["gap"], "low": row["gap_low"], "high": row["gap_high"]}
        for row in records(rows)
    ]
