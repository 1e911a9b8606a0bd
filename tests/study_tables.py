"""A study whose tables are made: runs with chosen differences of accuracy and speedups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medscale.evaluate.paired import APART, APART_WITHIN
from medscale.report.synthesis.runs import StudyRuns

MODEL = {"name": "medical_cnn"}


# run: accuracy minus the baseline's in points, half width, adjusted p, reading, speedup, images
# that batch normalization takes together
RUNS: dict[str, tuple[float, float, float, str, float, float]] = {
    "serial_1gpu": (0.0, 0.0, np.nan, "", 1.0, 32),
    "ddp_2gpu": (-1.0, 0.5, 0.4, APART_WITHIN, 1.8, 16),
    "ddp_amp_2gpu": (-10.0, 4.0, 0.02, APART, 2.1, 16),
    "serial_amp_1gpu": (-12.0, 4.0, 0.02, APART, 1.2, 32),
    "ddp_2cpu": (-1.0, 0.5, 0.4, APART_WITHIN, 1.8, 16),
    "serial_1gpu_bs64": (-4.0, 3.0, 0.3, APART, 1.1, 64),
    "serial_1gpu_resnet50": (-30.0, 3.0, 0.001, APART, 1.0, 32),
}


ALL = [run for run in RUNS if run not in ("serial_amp_1gpu", "ddp_2cpu")]


def study(runs: list[str], **changes: Any) -> StudyRuns:
    """Return a study whose tables hold ``runs``."""
    rows = [{"run": run, "row": RUNS[run]} for run in runs]
    timing = pd.DataFrame(
        {
            "run": row["run"],
            "baseline": "serial_1gpu",
            "devices": 2 if "_2" in row["run"] else 1,
            "device": "gpu",
            "amp": "amp" in row["run"],
            "stand_in": False,
            "format": "fp32",
            "seconds": 1.0,
            "speedup": row["row"][4],
            "speedup_ci_low": row["row"][4] - 0.1,
            "speedup_ci_high": row["row"][4] + 0.1,
            "efficiency": row["row"][4] / 2,
            "efficiency_ci_low": np.nan,
            "efficiency_ci_high": np.nan,
        }
        for row in rows
    )
    tests = pd.DataFrame(
        {
            "run": row["run"],
            "accuracy": row["row"][0],
            "accuracy_low": row["row"][0] - row["row"][1],
            "accuracy_high": row["row"][0] + row["row"][1],
            "accuracy_p_holm": row["row"][2],
            "reading": row["row"][3],
        }
        for row in rows[1:]
    )
    parity = pd.DataFrame({"run": runs, "images": [RUNS[run][5] for run in runs]})
    summaries = {
        run: {
            "seeds": [1, 2],
            "counts": {"test": {"images": 300, "groups": 200}},
            "model": {"name": "resnet50"} if "resnet50" in run else MODEL,
            "global_batch": 64 if "bs64" in run else 32,
            "learning_rate": 1e-3,
            "timing": {
                "communication_measured": True,
                "seconds_by_kind": {
                    "data": {"mean": 1.0},
                    "compute": {"mean": 8.0 if "2gpu" in run else 9.0},
                    "communication": {"mean": 1.0 if "2gpu" in run else 0.0},
                },
            },
            "metrics": {
                "test": {
                    "accuracy": {
                        "mean": 0.8,
                        "seed_sd": 0.02,
                        "values": [0.8 + RUNS[run][0] / 100 + shift for shift in (0.01, -0.01)],
                    }
                }
            },
        }
        for run in runs
    }
    cost = pd.DataFrame({"run": runs, "replicates": 2, "reached": [2] + [1] * (len(runs) - 1)})
    tables = {"timing": timing, "tests": tests, "parity": parity, "reported": pd.DataFrame()}
    tables["cost"] = cost
    settings: dict[str, Any] = {
        "name": "glaucoma",
        "title": "Glaucoma",
        "baseline": "serial_1gpu",
        "margin": 2.0,
        "split": "grouped",
        "personal": False,
        "variants": {},
    }
    return StudyRuns(**settings | changes, summaries=summaries, audit={}, tables=tables)
