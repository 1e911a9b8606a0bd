"""Facts of the chapter quality: what the paper says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medscale.evaluate.paired import APART, APART_WITHIN, OPEN, SAME
from medscale.report.latex import number
from medscale.report.names import label
from medscale.report.result.reading import Result, records

READINGS = {"equal": SAME, "apart_within": APART_WITHIN, "apart": APART, "undecided": OPEN}


def facts(
    base: Result, tests: pd.DataFrame, together_: pd.DataFrame, margin: float
) -> dict[str, Any]:
    """``structure`` and ``values`` as in facts.json, which takes them up."""
    by = [one for one in dict.fromkeys(base.subgroups["by"]) if one != "all"]
    said = {
        name: [label(row["run"]) for row in records(tests) if row["reading"] == words]
        for name, words in READINGS.items()
    }
    adjusted = (
        tests[["accuracy_p_holm", "auroc_p_holm"]].to_numpy(dtype=float)
        if len(tests)
        else np.empty((0, 2))
    )
    significant = [
        label(row["run"])
        for row, p in zip(records(tests), adjusted, strict=True)
        if np.nanmin(p) < 0.05
    ]
    apart = [*said["apart_within"], *said["apart"]]
    rejected = {label(row["run"]) for row in records(tests) if row["accuracy_p_holm"] < 0.05}
    values = {"margin": f"{margin:g}", "tests": str(len(tests))}
    if (temperature := base.summary["calibration"]["temperature"]) is not None:
        values["temperature"] = number(temperature, 2)
    return {
        "structure": {
            "temperature": temperature,
            "subgroups": by,
            "readings": said,
            "significant": significant,
            "interval_alone": [name for name in apart if name not in rejected],
            "ensembles": len(together_),
        },
        "values": values,
    }
