"""Facts of the chapter on quality: what the tests between runs find, and the calibration."""

from typing import Any

import pandas as pd

from medscale.evaluate.paired import APART, APART_WITHIN, OPEN, SAME
from medscale.report.names import label
from medscale.report.quality.tables import shown_classes
from medscale.report.result.reading import Result

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
    apart = tests["reading"].isin([APART_WITHIN, APART])
    return {
        "temperature": baseline.summary["calibration"]["temperature"],
        "margin": margin,
        "tests": len(tests),
        "readings": {key: labels(tests["reading"] == words) for key, words in READINGS.items()},
        "significant": labels(accuracy | auroc),
        "interval_alone": labels(apart & ~accuracy),
        "subgroups": [by for by in dict.fromkeys(baseline.subgroups["by"]) if by != "all"],
        "ensembles": not ensembles.empty,
        "operating_classes": len(shown_classes(baseline.operating)),
    }
