"""The simulation of how often intervals hold the true value, and its table in the documents."""

from __future__ import annotations

import pandas as pd

from bench import intervals
from training_runs import ROOT

TABLE = ROOT / "docs" / "intervals.csv"
COLUMNS = {
    "accuracy, balanced accuracy, MCC": ["accuracy", "balanced_accuracy", "mcc"],
    "AUROC, average precision": ["auroc", "auprc"],
    "sensitivity, specificity": ["sensitivity", "specificity"],
    "Brier score, log loss": ["brier", "nll"],
    "calibration error (ECE)": ["ece"],
    "calibration slope": ["calibration_slope"],
    "calibration intercept": ["calibration_intercept"],
    "difference in accuracy": ["accuracy_difference"],
    "difference in AUROC": ["auroc_difference"],
    "difference in ECE": ["ece_difference"],
}


def test_the_documents_have_the_measured_coverage() -> None:
    measured = pd.read_csv(TABLE)
    text = (ROOT / "docs" / "explanation" / "statistics.md").read_text("utf-8")
    for name, columns in COLUMNS.items():
        cells = [name]
        for patients in (20, 50, 100, 300):
            values = measured.loc[measured["patients"] == patients, columns]
            cells.append(f"{values.min().min():.0f} to {values.max().max():.0f}")
        assert f"| {' | '.join(cells)} |" in text


def test_the_limits_that_the_paper_states_are_measured() -> None:
    measured = pd.read_csv(TABLE)
    few = measured[measured["patients"] <= 100]
    perfect = few[few["population"] == "almost perfect"]
    assert few["calibration_slope"].max() < 92
    assert perfect[["brier", "nll"]].max().max() < 80


def test_the_metrics_of_a_simulated_population_have_intervals() -> None:
    row = intervals.coverage(intervals.POPULATIONS[1], patients=40, samples=4)
    assert set(row) - {"population", "patients"} == {c for part in COLUMNS.values() for c in part}
    assert row["ece"] >= 75  # percentiles of resamples hold it in about a third of such cases
    assert row["accuracy"] >= 75
