"""Metrics against scikit-learn, and their intervals over patients."""

from __future__ import annotations

import time
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from medscale.evaluate import bootstrap, calibration, metrics
from medscale.evaluate.replicates import Predictions
from synthetic_runs import probabilities


def cases(classes: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and rounded probabilities, so that scores are tied."""
    labels = np.random.default_rng(seed).integers(0, classes, images)
    odds = np.round(probabilities(labels, classes, 1.0, seed), 1) + 0.01
    return labels, odds / odds.sum(axis=1, keepdims=True)


def by_scikit_learn(labels: np.ndarray, odds: np.ndarray) -> tuple[dict, dict]:
    """Return the metrics of the predicted classes, over all classes and of each class."""
    predicted, codes = odds.argmax(axis=1), np.arange(odds.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains|A single label was found")
        overall = {
            "accuracy": accuracy_score(labels, predicted),
            "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        }
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), scores, strict=False):
            overall[f"{name}_{average}"] = value
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=codes, zero_division=0
    )
    recall, f1 = (np.where(support > 0, values, np.nan) for values in (recall, f1))
    return overall, {"precision": precision, "recall": recall, "f1": f1}


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(2, 5), images=st.integers(2, 60), seed=st.integers(0, 999))
@example(classes=3, images=14, seed=85)  # all images almost separate a class, a resample does not
@example(classes=5, images=25, seed=855)  # the slope is 88, which rounding changes by 5e-9
def test_every_resample_has_the_values_that_scikit_learn_gives_for_its_images(
    classes, images, seed
):
    labels, odds = cases(classes, images, seed)
    groups = np.sort(np.random.default_rng(seed).integers(0, max(2, images // 3), images))
    groups = pd.factorize(groups)[0]
    draws = bootstrap.draw(int(groups.max()) + 1, 5, seed)
    overall, by_class = bootstrap.resample(labels, odds, groups, draws)
    for number, counts in enumerate(draws):
        image_rows = np.repeat(np.arange(images), counts[groups])
        points = metrics.point(labels[image_rows], odds[image_rows])
        points_by_class = metrics.per_class(labels[image_rows], odds[image_rows])
        assert set(points) == set(overall) - {calibration.NOISE} == set(metrics.names(classes))
        assert set(points_by_class) == set(by_class) == set(metrics.PER_CLASS)
        decisions, decisions_by_class = by_scikit_learn(labels[image_rows], odds[image_rows])
        for expected, values in (
            (points, overall),
            (points_by_class, by_class),
            (decisions, overall),
            (decisions_by_class, by_class),
        ):
            for name, value in expected.items():
                # Where logits almost separate the outcomes, the likelihood is flat at its maximum.
                if name.startswith("calibration_") and abs(value) > 20:
                    continue
                np.testing.assert_allclose(
                    values[name][number], value, rtol=1e-9, atol=1e-12, err_msg=name
                )


def test_many_classes_need_no_confusion_matrix_of_each_resample():
    labels, odds = np.arange(800) % 400, np.random.default_rng(0).random((800, 400))
    tracemalloc.start()
    bootstrap.decisions(labels, odds, np.arange(800), bootstrap.draw(800, 200, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # the matrices would take 256 MB


def test_auroc_is_of_the_last_of_two_classes_and_the_mean_over_more():
    labels, odds = cases(2, 200, 1)
    assert metrics.point(labels, odds)["auroc"] == pytest.approx(roc_auc_score(labels, odds[:, 1]))
    labels, odds = cases(4, 200, 1)
    values = metrics.point(labels, odds)
    assert values["auroc"] == pytest.approx(
        roc_auc_score(labels, odds, multi_class="ovr", average="macro")
    )
    assert values["auroc_micro"] == pytest.approx(
        roc_auc_score(np.eye(4)[labels], odds, average="micro")
    )
    assert values["f1_macro"] == pytest.approx(f1_score(labels, odds.argmax(1), average="macro"))
    assert values["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, odds.argmax(1))
    )


def test_the_interval_holds_the_true_accuracy_in_about_95_of_100_datasets():
    rng, hits, sets = np.random.default_rng(0), 0, 300
    for number in range(sets):
        is_correct = rng.random(150) < 0.8
        labels = np.zeros(150, np.int64)
        odds = np.where(is_correct[:, None], [0.9, 0.1], [0.1, 0.9])
        resampled = bootstrap.decisions(
            labels, odds, np.arange(150), bootstrap.draw(150, 400, number)
        )
        low, high = bootstrap.interval(resampled.overall["accuracy"])
        hits += low <= 0.8 <= high
    assert 0.90 <= hits / sets <= 0.985


def test_drawing_patients_gives_wider_intervals_than_drawing_images_when_a_patients_images_agree():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 8)
    is_correct = np.repeat(rng.random(60) < 0.75, 8)
    labels = np.repeat(rng.integers(0, 2, 60), 8)
    odds = np.where((labels == 1) == is_correct, 0.8, 0.2)
    odds = np.stack([1 - odds, odds], axis=1)
    by_patient = bootstrap.resample(labels, odds, groups, bootstrap.draw(60, 500, 0)).overall
    by_image = bootstrap.resample(labels, odds, np.arange(480), bootstrap.draw(480, 500, 0)).overall
    for name in ("accuracy", "auroc"):
        wide, narrow = (
            np.ptp(bootstrap.interval(values[name])) for values in (by_patient, by_image)
        )
        assert wide > 1.8 * narrow, name


def test_a_thousand_resamples_of_3000_images_take_seconds():
    labels, odds = cases(2, 3000, 0)
    start = time.process_time()  # other programs on the machine do not lengthen it
    bootstrap.resample(labels, odds, np.arange(3000), bootstrap.draw(3000, 1000, 0))
    assert time.process_time() - start < 5


def all_right(patients: int, classes: int = 2) -> Predictions:
    """Return right answers to one image of each patient."""
    labels = np.arange(patients) % classes
    own = np.arange(patients)
    return Predictions(own, labels, own, np.eye(classes)[[labels]])


@pytest.mark.parametrize(
    ("patients", "name", "low"),
    # By hand, Clopper and Pearson: 0.025 ** (1 / 51) = 0.9302; of 25 patients of the smaller class:
    # 0.025 ** (1 / 25) = 0.8628.
    [(51, "accuracy", 0.9302), (51, "f1_weighted", 0.9302), (51, "auroc", 0.8628)],
)
def test_a_perfect_score_of_few_patients_has_an_interval(patients, name, low):
    predicted = all_right(patients)
    for score, expected in ((1.0, (low, 1.0)), (0.0, (0.0, 1 - low))):
        ends = metrics.interval(name, predicted, [], [{name: np.full(100, score)}], None)
        assert ends == pytest.approx(expected, abs=1e-4)
    differences = metrics.difference_interval(name, predicted, np.zeros(9), None)
    assert differences == pytest.approx((low - 1, 1 - low), abs=1e-4)
    wrong = metrics.interval("mcc", predicted, [], [{"mcc": np.full(9, -1.0)}], None)
    assert wrong == pytest.approx((-1, -0.8628), abs=1e-4)
    exact = stats.binomtest(patients, patients).proportion_ci(0.95, method="exact")
    if name == "accuracy":
        ends = metrics.interval(name, predicted, [], [{name: np.ones(9)}], None)
        assert ends == pytest.approx(exact)


def test_the_interval_of_a_calibration_error_includes_it_and_that_of_unlimited_images():
    rng, outside = np.random.default_rng(0), 0
    own, draws = np.arange(100), bootstrap.draw(100, 400, 0)
    for _ in range(60):
        scores = rng.uniform(0, 1, 100)
        labels = (rng.uniform(0, 1, 100) < scores).astype(np.int64)  # calibrated: no error
        odds = np.stack([1 - scores, scores], axis=1)
        predicted = Predictions(own, labels, own, odds[None])
        values = calibration.resample(labels, odds, own, draws)
        points = [calibration.point(labels, odds)]
        low, high = metrics.interval("ece", predicted, points, [values], None)
        assert 0 <= low <= points[0]["ece"] <= high  # percentiles of the resamples exclude it often
        outside += low > 0
    assert outside <= 6  # of 60, 2.5 % are expected; with percentiles it is 60
    undefined = [{"ece": np.full(3, np.nan), calibration.NOISE: np.full(3, np.nan)}]
    assert np.isnan(metrics.interval("ece", predicted, points, undefined, None)).all()


def test_a_calibration_error_of_many_images_has_an_interval_without_0():
    # By hand: of 4,000 answers with a confidence of 0.9, 80 % are right: an error of 0.1. The share
    # has a standard error e = 0.4 / sqrt(4000) = 0.0063. Resamples exceed the error by 1.96 e, and
    # their distance from it 2.24 e, in 2.5 % of cases.
    labels, own = (np.arange(4000) % 5 == 0).astype(np.int64), np.arange(4000)
    odds = np.tile([0.9, 0.1], (4000, 1))
    predicted = Predictions(own, labels, own, odds[None])
    values = calibration.resample(labels, odds, own, bootstrap.draw(4000, 2000, 0))
    ends = metrics.interval("ece", predicted, [calibration.point(labels, odds)], [values], None)
    assert ends == pytest.approx((0.1 - 0.0142, 0.1 + 0.0124), abs=1e-3)


def test_right_answers_alone_do_not_make_a_calibration_error_certain():
    # Of 20 patients, all judged right, 16.8 % can be judged wrong outside (Clopper & Pearson).
    own, odds = np.arange(20), np.tile([0.01, 0.99], (20, 1))
    for labels, low, high in (
        (np.ones(20, np.int64), 0.0, 0.01 + 0.1684),
        (np.zeros(20, np.int64), 0.99 - 0.1684, 1.0),
    ):
        predicted = Predictions(own, labels, own, odds[None])
        values = calibration.resample(labels, odds, own, bootstrap.draw(20, 200, 0))
        ends = metrics.interval("ece", predicted, [calibration.point(labels, odds)], [values], None)
        assert ends == pytest.approx((low, high), abs=1e-4)


def test_the_interval_of_an_average_is_that_of_the_smallest_class_in_the_average():
    labels = np.repeat([0, 1, 2], [20, 10, 2])  # the third class has two patients
    own = np.arange(32)
    predicted, ones = Predictions(own, labels, own, np.eye(3)[[labels]]), np.ones(9)
    for class_mask, patients in (
        (None, 2), (np.array([True, True, False]), 10), (np.array([True, False, False]), 20),
    ):  # fmt: skip
        low, high = metrics.interval("auroc", predicted, [], [{"auroc": ones}], class_mask)
        assert (low, high) == pytest.approx((0.025 ** (1 / patients), 1))
    part = predicted.part(labels == 2)  # no class of the average is in it
    areas = [{"auroc": ones * np.nan}]
    undefined = metrics.interval("auroc", part, [], areas, np.array([True, True, False]))
    assert np.isnan(undefined).all()


def test_one_patient_of_a_class_leaves_its_score_open():
    labels, own = np.arange(60) == 0, np.arange(60)
    scores = np.where(labels, 0.9, own / 60)
    odds = np.stack([1 - scores, scores], axis=1)[None]
    predicted = Predictions(own, labels.astype(np.int64), own, odds)
    areas = metrics.resamples(predicted, bootstrap.draw(60, 200, 0))[0].overall
    assert np.nanmin(areas["auroc"]) > 0.8  # only the patients of the other class vary
    assert metrics.interval("auroc", predicted, [], [areas], None) == (0, 1)
