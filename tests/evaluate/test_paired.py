"""Tests of the paired tests against their definitions, published methods and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medscale.evaluate import bootstrap, paired
from medscale.evaluate.replicates import Predictions


def predicted(labels, *odds, groups=None) -> Predictions:
    groups = np.arange(len(labels)) if groups is None else groups
    return Predictions(np.arange(len(labels)), np.asarray(labels), groups, np.stack(odds))


def scored(labels, skill, rng, classes=2) -> np.ndarray:
    logits = rng.normal(0, 1, (len(labels), classes)) + skill * np.eye(classes)[labels]
    odds = np.exp(logits)
    return np.round(odds / odds.sum(axis=1, keepdims=True), 2)  # with ties


def delong_by_definition(labels, odds_a, odds_b):
    """Return areas and covariance of DeLong et al. (1988) from the kernels of all pairs."""
    kernels = [
        (s[labels == 1][:, None] > s[labels == 0])
        + 0.5 * (s[labels == 1][:, None] == s[labels == 0])
        for s in (odds_a, odds_b)
    ]
    v10, v01 = (np.stack([k.mean(axis=axis) for k in kernels]) for axis in (1, 0))
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    return [k.mean() for k in kernels], covariance


@pytest.mark.parametrize("seed", range(5))
def test_delong_is_that_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 60)
    odds_a, odds_b = scored(labels, 0.8, rng), scored(labels, 1.2, rng)
    expected, covariance = delong_by_definition(labels, odds_a[:, 1], odds_b[:, 1])
    areas = [paired.auroc(predicted(labels, odds)) for odds in (odds_a, odds_b)]
    assert [area.auroc for area in areas] == pytest.approx(expected)
    assert areas[0].auroc == pytest.approx(roc_auc_score(labels, odds_a[:, 1]))
    table = np.stack([area.influence for area in areas])
    np.testing.assert_allclose(table @ table.T, covariance, rtol=1e-9)
    row = paired.compare(
        ["a", "b"],
        [predicted(labels, odds_a), predicted(labels, odds_b)],
        0,
        2,
        bootstrap.draw(60, 50, 0),
    ).iloc[0]
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    z = (expected[1] - expected[0]) / np.sqrt(variance)
    assert row["auroc_p"] == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert row["auroc_high"] - row["auroc"] == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)


@pytest.mark.parametrize(("classes", "images_per_patient"), [(2, 3), (4, 2)])
def test_its_error_is_that_of_the_bootstrap_over_patients(classes, images_per_patient):
    rng = np.random.default_rng(1)
    patients = rng.integers(0, classes, 150)
    labels, groups = (
        np.repeat(patients, images_per_patient),
        np.repeat(np.arange(150), images_per_patient),
    )
    shared = np.repeat(scored(patients, 1.0, rng, classes), images_per_patient, axis=0)
    odds = [np.round(0.7 * shared + 0.3 * scored(labels, 1.0, rng, classes), 3) for _ in range(2)]
    odds = [scores / scores.sum(axis=1, keepdims=True) for scores in odds]
    areas = paired.auroc(predicted(labels, *odds, groups=groups))
    draws = bootstrap.draw(150, 1500, 0)
    by_bootstrap = np.mean(
        [bootstrap.resample(labels, scores, groups, draws).overall["auroc"] for scores in odds],
        axis=0,
    )
    assert np.sqrt((areas.influence**2).sum()) == pytest.approx(by_bootstrap.std(), rel=0.08)
    alone = paired.auroc(predicted(labels, *odds))
    assert (alone.influence**2).sum() < 0.8 * (areas.influence**2).sum()


def test_no_difference_is_found_in_about_5_of_100_when_there_is_none():
    rng, rejections, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        labels = rng.integers(0, 2, 80)
        pair = [paired.auroc(predicted(labels, scored(labels, 1.0, rng))) for _ in range(2)]
        error = np.sqrt(((pair[0].influence - pair[1].influence) ** 2).sum())
        rejections += paired.normal_p(pair[0].auroc - pair[1].auroc, error) < 0.05
    assert 0.02 <= rejections / trials <= 0.085


@pytest.mark.parametrize(("only_one", "only_other"), [(0, 0), (5, 5), (3, 12), (20, 4), (0, 9)])
def test_with_one_image_a_patient_it_is_mcnemars_exact_test(only_one, only_other):
    changes = np.array([1] * only_one + [-1] * only_other + [0] * 7)
    expected = (
        stats.binomtest(only_one, only_one + only_other).pvalue if only_one + only_other else 1.0
    )
    assert paired.sign_flips(changes) == pytest.approx(expected)


@pytest.mark.parametrize("changes", [[3, -1, 2, 2], [4, 4, -1, 1, 1], [1, -2, 3, 0, 5, 1]])
def test_patients_with_several_images_flip_together(changes):
    sums = [np.dot(signs, np.abs(changes)) for signs in product((-1, 1), repeat=len(changes))]
    expected = np.mean(np.abs(sums) >= abs(sum(changes)))
    assert paired.sign_flips(np.array(changes)) == pytest.approx(expected)


def test_holm_adjusts_in_steps():
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.005])
    np.testing.assert_allclose(paired.holm(p), [0.03, 0.06, 0.06, np.nan, 0.02])
    assert paired.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.0, 1.5, paired.SAME),
        (0.5, 1.5, paired.APART_WITHIN),
        (0.5, 2.5, paired.APART),
        (-3.0, -2.1, paired.APART),
        (-1.0, 2.5, paired.OPEN),
        (-2.0, 1.0, paired.OPEN),
        (np.nan, np.nan, paired.OPEN),
    ],
)
def test_equality_is_read_from_the_interval(low, high, expected):
    assert paired.reading(low, high, 2.0, 200) == expected


@pytest.mark.parametrize("margin", [0.5, 2.0, 5.0, 20.0])
def test_equal_answers_to_few_images_do_not_show_equality(margin):
    fewest = paired.fewest_patients(margin)
    # The probability that no answer differs, if those of this share of the patients do.
    assert (1 - margin / 100) ** fewest <= 0.025 < (1 - margin / 100) ** (fewest - 1)
    assert paired.reading(0.0, 0.0, margin, fewest) == paired.SAME
    assert paired.reading(0.0, 0.0, margin, fewest - 1) == paired.OPEN
    assert paired.smallest_difference(fewest) <= margin < paired.smallest_difference(fewest - 1)
    ends = 0.1 * margin, 0.9 * margin
    assert paired.reading(*ends, margin, fewest - 1) == paired.APART
    assert paired.reading(0.0, 0.0, 100.0, 1) == paired.SAME
    assert paired.reading(0.0, 0.0, 0.0, 10**6) == paired.OPEN


def test_the_interval_of_equal_answers_is_exact():
    labels = np.arange(40) % 2
    runs = [predicted(labels, np.eye(2)[labels]) for _ in range(2)]
    row = paired.compare(["a", "b"], runs, 0, 5, bootstrap.draw(40, 50, 0)).iloc[0]
    exact = 100 * stats.beta.ppf(0.975, 1, 40)  # Clopper & Pearson, of 0 in 40 patients
    ends = row["accuracy_low"], row["accuracy_high"]
    assert (row["accuracy"], *ends) == pytest.approx((0, -exact, exact))
    assert exact > 5
    assert row["reading"] == paired.OPEN
    assert (row["auroc"], row["auroc_p"]) == (0, 1)
    assert np.isnan([row["auroc_low"], row["auroc_high"]]).all()


@pytest.mark.parametrize("one", [0, 1])
def test_one_patient_of_a_class_leaves_the_difference_of_areas_open(one):
    # DeLong's variance divides by the number of patients of each class less one.
    own = np.arange(60)
    labels = np.where(own < 2, one, 1 - one)
    groups = np.maximum(own - 1, 0)  # two images of one patient
    rng = np.random.default_rng(0)
    runs = [predicted(labels, scored(labels, skill, rng), groups=groups) for skill in (3, 0)]
    row = paired.compare(["a", "b"], runs, 0, 2, bootstrap.draw(59, 50, 0)).iloc[0]
    assert np.isfinite(row["auroc"])
    assert row[["auroc_low", "auroc_high", "auroc_p", "auroc_p_holm"]].isna().all()
    assert np.isfinite(row["accuracy_p_holm"])


def test_classes_of_few_patients_are_left_out_of_the_mean_area():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [20, 20, 3])
    odds = scored(labels, 1.0, rng, 3)
    expected = [roc_auc_score(labels == code, odds[:, code]) for code in (0, 1)]
    assert paired.auroc(predicted(labels, odds)).auroc == pytest.approx(np.mean(expected))


def test_runs_stand_beside_the_baseline():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 120)
    base = [scored(labels, 2.0, rng, 3) for _ in range(2)]
    worse = [scored(labels, 0.5, rng, 3) for _ in range(2)]
    runs = [predicted(labels, *odds) for odds in (worse, base, base)]
    table = paired.compare(
        ["worse", "base", "same"], runs, 1, 5.0, bootstrap.draw(120, 400, 0)
    ).set_index("run")
    same_run, worse_run = table.loc["same"], table.loc["worse"]
    assert (
        same_run["only_run"],
        same_run["only_baseline"],
        same_run["accuracy"],
        same_run["auroc"],
    ) == (0, 0, 0, 0)
    assert (same_run["accuracy_p"], same_run["auroc_p"], same_run["reading"]) == (1, 1, paired.SAME)
    assert worse_run["reading"] == paired.APART
    assert worse_run["accuracy_high"] < 0 > worse_run["auroc_high"]
    accuracies = [[(odds.argmax(1) == labels).mean() for odds in run] for run in (worse, base)]
    assert worse_run["accuracy"] == pytest.approx(
        100 * (np.mean(accuracies[0]) - np.mean(accuracies[1]))
    )
    assert worse_run["accuracy_p_holm"] == pytest.approx(min(1, 2 * worse_run["accuracy_p"]))
    assert max(worse_run["accuracy_p_holm"], worse_run["auroc_p_holm"]) < 0.001
