"""Scores inside and outside: what is compared, and the copies that are counted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medscale.evaluate.external import ENDS, copies, same_patients, shift, validation_fit

BOTH = {"classes": ["well", "ill"], "confusion": [[9, 1], [2, 8]], "not_averaged": []}


def test_the_interval_of_the_shift_is_that_of_two_independent_sets():
    # Of a perfect area inside no resample differs; its interval counts all the same.
    perfect, unknown = {"mean": 1.0, "low": 0.91, "high": 1.0}, dict.fromkeys(ENDS)
    summary = {"metrics": {"test": {"auroc": perfect, "mcc": unknown}}} | BOTH
    score = {"mean": 0.8, "low": 0.68, "high": 0.86}
    outside = pd.DataFrame([{"metric": name} | score for name in ("auroc", "mcc", "new")])
    assessment = SimpleNamespace(scores=outside, confusion=np.eye(2), not_averaged=[])
    table = shift(summary, assessment).set_index("metric")
    assert table.index.tolist() == ["auroc", "mcc"]
    line = table.loc["auroc"]
    names = ["inside_low", "outside_high", "difference", "difference_low", "difference_high"]
    # Lower end: 0.12 below outside, 0 above inside. Upper end: 0.06 above outside, 0.09 below it.
    expected = [0.91, 0.86, -0.2, -0.2 - 0.12, -0.2 + np.hypot(0.06, 0.09)]
    assert line[names].tolist() == pytest.approx(expected)
    assert table.loc["mcc", ["inside", "difference", "difference_low"]].isna().all()
    assert table.loc["mcc", "outside"] == 0.8


def test_averages_over_different_classes_are_not_compared():
    names = ["accuracy", "balanced_accuracy", "auroc", "auprc", "f1_macro", "f1_weighted", "mcc"]
    score = {"mean": 0.9, "low": 0.86, "high": 0.94}
    classes = {"classes": ["keratosis", "melanoma", "nevus"], "confusion": [[9, 1, 0]] * 3}
    three = classes | {"not_averaged": ["nevus"]}
    scores = pd.DataFrame([{"metric": name} | score for name in names])

    def compared(study: dict, images: list[int], not_averaged: list[str]) -> list[str]:
        summary = {"metrics": {"test": dict.fromkeys(names, score)}} | study
        confusion = np.diag(images)
        outside = SimpleNamespace(scores=scores, confusion=confusion, not_averaged=not_averaged)
        table = shift(summary, outside)
        assert table["outside"].notna().all()
        return table.loc[table["difference"].notna(), "metric"].tolist()

    others = ["accuracy", "f1_weighted", "mcc"]
    assert compared(three, [5, 5, 1], ["nevus"]) == compared(three, [5, 5, 0], ["nevus"]) == names
    assert compared(three, [5, 5, 5], []) == others
    assert compared(three, [5, 1, 1], ["nevus", "melanoma"]) == others
    # Where fewer than two classes remain, none is left out by name.
    assert compared(three, [5, 5, 0], []) == names
    assert compared(BOTH, [5, 1], []) == names
    assert compared(BOTH, [5, 0], []) == compared(BOTH, [0, 5], []) == others


def test_temperatures_and_thresholds_are_those_of_the_result():
    operating = pd.DataFrame(
        {"class": ["ill"], "wanted": [0.9], "threshold": [0.5], "threshold_1": [0.4]}
    ).assign(sensitivity=0.7)
    rules = validation_fit({"calibration": {"temperatures": [1.5, None]}}, operating)
    assert rules.temperatures[0] == 1.5
    assert np.isnan(rules.temperatures[1])
    assert rules.thresholds.columns.tolist() == ["class", "wanted", "threshold", "threshold_1"]


def test_copies_are_counted_by_split():
    training = pd.DataFrame({"sha256": ["a", "b", "c"], "split": ["train", "train", "test"]})
    outside = pd.Series(["a", "c", "c", "d"])
    assert copies(outside, training) == {"train": 1, "val": 0, "test": 2}
    assert copies(outside, None) is None


def test_images_of_patients_of_the_study_are_counted_by_split():
    training = pd.DataFrame(
        {
            "patient": ["p1", "p1", "p2", "p3", None],
            "split": ["train", "train", "val", "test", "test"],
        }
    )
    outside = pd.Series(["p1", "p1", "p3", None, "p9"])
    assert same_patients(outside, training) == {"train": 2, "val": 0, "test": 1}
    assert same_patients(pd.Series(["p9", None]), training) == {"train": 0, "val": 0, "test": 0}
    unknown = training.assign(patient=None)
    for names, index in [(outside, None), (outside, unknown), (pd.Series([None]), training)]:
        assert same_patients(names, index) is None
