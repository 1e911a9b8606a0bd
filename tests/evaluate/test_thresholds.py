"""What a threshold does, held against scikit-learn, dcurves and fairlearn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, true_negative_rate, true_positive_rate
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    class_likelihood_ratios,
    matthews_corrcoef,
    precision_score,
    recall_score,
)

from medscale.base.errors import MedscaleError
from medscale.config.sections import Evaluate
from medscale.evaluate import bootstrap, calibration, metrics
from medscale.evaluate.decision_curve import THRESHOLDS, decision_curve
from medscale.evaluate.distribution import score_distribution
from medscale.evaluate.gaps import gaps
from medscale.evaluate.operating import operating_points, thresholds
from medscale.evaluate.predictive import consequences, cost_without_test, odds
from medscale.evaluate.replicates import Predictions
from medscale.evaluate.subgroups import subgroups

TWO = ["well", "ill"]


def cases(images: int, seed: int, sharpness: float = 1.0) -> Predictions:
    """Return predictions of two replicates whose logits are ``sharpness`` times the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 1.5, images)
    labels = (rng.random(images) < expit(logits)).astype(np.int64)
    positive = expit(sharpness * logits + rng.normal(0, 0.2, (2, images)))
    odds = np.stack([1 - positive, positive], axis=2)
    return Predictions(np.arange(images), labels, np.arange(images) // 2, odds)


def evaluated(settings: Evaluate, test: Predictions | None = None) -> pd.DataFrame:
    test = test or cases(400, 2)
    limits = thresholds(cases(300, 1), TWO, settings.specificities)
    draws = bootstrap.draw(int(test.groups.max()) + 1, 200, 0)
    return operating_points(test, limits, TWO, settings, draws)


def first_replicate(predicted: Predictions) -> Predictions:
    return Predictions(
        predicted.ids, predicted.labels, predicted.groups, predicted.probabilities[:1]
    )


@pytest.mark.parametrize("prevalences", [None, 0.04])
def test_predictive_values_and_likelihood_ratios_are_those_of_scikit_learn(prevalences):
    settings = Evaluate(prevalence={} if prevalences is None else {"ill": prevalences}, miss_cost=5)
    test = first_replicate(cases(400, 2))
    limits = thresholds(first_replicate(cases(300, 1)), TWO, settings.specificities)
    table = operating_points(test, limits, TWO, settings, bootstrap.draw(200, 200, 0))
    share = test.labels.mean()
    prevalence = share if prevalences is None else prevalences
    # Weights that give the images the stated prevalence.
    weights = np.where(test.labels == 1, prevalence / share, (1 - prevalence) / (1 - share))
    for row in table.itertuples():
        called = (test.probabilities[0, :, 1] > row.threshold).astype(int)
        options = {"sample_weight": weights, "pos_label": 1}
        assert row.prevalence == pytest.approx(prevalence)
        assert row.stated == (prevalences is not None)
        assert row.ppv == pytest.approx(precision_score(test.labels, called, **options))
        inverse = {"sample_weight": weights, "pos_label": 0}
        assert row.npv == pytest.approx(precision_score(test.labels, called, **inverse))
        assert row.mcc == pytest.approx(
            matthews_corrcoef(test.labels, called, sample_weight=weights)
        )
        ratios = class_likelihood_ratios(test.labels, called)
        assert (row.lr_positive, row.lr_negative) == pytest.approx(ratios)
        costs = 5 * (called < test.labels) + (called > test.labels)
        assert row.cost == pytest.approx(np.average(costs, weights=weights))
        assert row.cost_untested == pytest.approx(min(1 - prevalence, 5 * prevalence))
        for name in ("ppv", "npv", "lr_positive", "lr_negative", "mcc", "cost"):
            low, value, high = (getattr(row, name + end) for end in ("_low", "", "_high"))
            assert low < value < high, name


def test_a_ratio_without_false_alarms_is_infinite_and_its_interval_has_a_lower_end():
    values = consequences(0.8, 1.0, 0.1, 1.0)
    assert odds(values["lr_positive"]) == np.inf
    rates = np.linspace(0.01, 1, 200)  # 1 + rate is rounded, so that 1 + rate - 1 is another number
    assert (odds(consequences(rates, 1.0, 0.1, 1.0)["lr_positive"]) == np.inf).all()
    assert (odds(consequences(1 - rates[:-1], 0.0, 0.1, 1.0)["lr_negative"]) == np.inf).all()
    assert (float(values["ppv"]), float(odds(values["lr_negative"]))) == pytest.approx((1.0, 0.2))
    values_without_positives = consequences(0.0, 1.0, 0.1, 1.0)  # no image is called positive
    assert np.isnan(values_without_positives["ppv"])
    assert values_without_positives["mcc"] == 0
    assert cost_without_test(0.1, 2) == pytest.approx(0.2)
    assert cost_without_test(0.9, 2) == pytest.approx(0.1)


def test_a_prevalence_of_a_class_that_does_not_exist_is_refused():
    with pytest.raises(MedscaleError, match=r"names 'well'; state the prevalence of: ill"):
        evaluated(Evaluate(prevalence={"well": 0.5}))


@pytest.mark.parametrize("classes", [2, 5])
def test_mcc_is_that_of_scikit_learn_on_every_resample(classes):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 120)
    odds = rng.dirichlet(np.ones(classes), 120) + 0.4 * np.eye(classes)[labels]
    odds /= odds.sum(axis=1, keepdims=True)
    draws = bootstrap.draw(120, 20, 0)
    mcc = bootstrap.decisions(labels, odds, np.arange(120), draws).overall["mcc"]
    for counts, value in zip(draws, mcc, strict=True):
        images = np.repeat(np.arange(120), counts)
        assert value == pytest.approx(matthews_corrcoef(labels[images], odds[images].argmax(1)))
    odds = np.tile([0.8, 0.2], (9, 1))
    assert metrics.point(np.arange(9) % 2, odds)["mcc"] == 0
    assert np.isnan(metrics.point(np.zeros(9, int), odds)["mcc"])  # says nothing, as AUROC


def test_calibration_slope_and_intercept_are_those_of_a_logistic_regression():
    test = cases(600, 3, sharpness=2.0)
    labels, odds = test.labels, test.probabilities[0]
    draws = bootstrap.draw(300, 40, 0)
    values = calibration.resample(labels, odds, test.groups, draws)
    for number in (0, 39):
        weights = draws[number][test.groups]
        x = logit(odds[:, 1])
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        fit.fit(x[:, None], labels, sample_weight=weights)
        assert values["calibration_slope"][number] == pytest.approx(fit.coef_[0, 0], rel=1e-4)
        intercept = brentq(lambda a, x=x, w=weights: w @ (labels - expit(a + x)), -9, 9)
        assert values["calibration_intercept"][number] == pytest.approx(intercept, abs=1e-6)
    point = calibration.point(labels, odds)
    assert point["calibration_slope"] == pytest.approx(0.5, abs=0.1)  # twice as extreme
    separated = calibration.point(labels, np.where(np.eye(2)[labels] == 1, 0.9, 0.1))
    assert np.isnan(separated["calibration_slope"])
    assert np.isnan(calibration.point(labels * 0, odds)["calibration_intercept"])


@pytest.mark.parametrize("temperature", [10, 300, 3000])
def test_the_slope_of_logits_that_a_temperature_makes_almost_equal_is_that_temperature_times_theirs(
    temperature,
):
    test = cases(600, 3, sharpness=2.0)
    labels, odds = test.labels, expit(logit(test.probabilities[0]) / temperature)
    draws = bootstrap.draw(300, 40, 0)
    slopes = calibration.resample(labels, odds, test.groups, draws)["calibration_slope"]
    expected = calibration.resample(labels, test.probabilities[0], test.groups, draws)
    np.testing.assert_allclose(slopes, temperature * expected["calibration_slope"], rtol=1e-6)


def test_of_more_than_two_classes_slope_and_intercept_are_of_the_confidence():
    rng = np.random.default_rng(0)
    odds = rng.dirichlet(np.ones(4), 3000)
    labels = np.array([rng.choice(4, p=row) for row in odds])
    point = calibration.point(labels, odds)
    assert point["calibration_slope"] == pytest.approx(1, abs=0.1)
    assert point["calibration_intercept"] == pytest.approx(0, abs=0.1)


# Net benefit by dcurves 1.1.7 (github.com/MSKCC-Epi-Bio/dcurves; it needs pandas below 3, so that
# it cannot be installed beside this package): dcurves.dca(data, outcome, modelnames,
# thresholds=[0.1, 0.3, 0.5, 0.7, 0.9], prevalence=None and 0.1), for the 40 predictions below.
DCURVES = {
    None: (
        [0.3444444444444444, 0.2, 0.15, 0.1333333333333333, 0.1],
        [0.41666666666666663, 0.25, -0.05, -0.75, -4.25],
    ),
    0.1: (
        [
            -0.011027568922305761,
            -0.18345864661654138,
            -0.23157894736842105,
            -0.14736842105263157,
            0.021052631578947368,
        ],
        [0.0, -0.2857142857142857, -0.8, -2.0, -8.0],
    ),
}


@pytest.mark.parametrize("prevalence", [None, 0.1])
def test_net_benefit_is_that_of_dcurves(prevalence):
    number = np.arange(40)
    scores = np.round(((number * 17) % 40 + 0.5) / 40, 3)
    labels = ((number * 7 % 10 < 3) | (scores > 0.8)).astype(np.int64)
    odds = np.stack([1 - scores, scores], axis=1)[None]
    settings = Evaluate(prevalence={} if prevalence is None else {"ill": prevalence})
    test = Predictions(number, labels, number, odds)
    table = decision_curve(test, TWO, settings, bootstrap.draw(40, 500, 0))
    at = table[np.isin(table["threshold"].round(6), [0.1, 0.3, 0.5, 0.7, 0.9])]
    expected, treat_all = DCURVES[prevalence]
    assert at["net_benefit"].tolist() == pytest.approx(expected)
    assert at["treat_all"].tolist() == pytest.approx(treat_all, abs=1e-12)
    assert (table["low"] <= table["net_benefit"]).all()
    assert (table["net_benefit"] <= table["high"]).all()
    assert len(table) == len(THRESHOLDS)
    # A probability that equals the threshold counts as positive, as in dcurves.
    equal = Predictions(number, labels, number, np.full((1, 40, 2), 0.5))
    acts = decision_curve(equal, TWO, Evaluate(), bootstrap.draw(40, 9, 0))
    half = acts[acts["threshold"] == 0.5].iloc[0]
    assert half["net_benefit"] == pytest.approx(half["treat_all"])


def test_subgroups_at_the_operating_point_are_those_of_fairlearn():
    test = first_replicate(cases(500, 4))
    sexes = np.where(np.arange(500) // 2 % 3 == 0, "female", "male")
    rows = pd.DataFrame({"sex": sexes, "view": "AP"})
    settings = Evaluate(smallest=10)
    limits = thresholds(first_replicate(cases(300, 1)), TWO, settings.specificities)
    table = gaps(test, rows, limits, TWO, settings, bootstrap.draw(250, 300, 0))
    assert set(table["by"]) == {"sex"}  # all views are the same
    for target, limit in zip(limits["wanted"], limits["threshold"], strict=True):
        called = (test.probabilities[0, :, 1] > limit).astype(int)
        functions = {"sensitivity": true_positive_rate, "specificity": true_negative_rate}
        frame = MetricFrame(
            metrics=functions, y_true=test.labels, y_pred=called, sensitive_features=sexes
        )
        part = table[table["wanted"] == target].set_index(["rate", "part"])
        for name in functions:
            by_group = frame.by_group[name]
            assert part.loc[(name, "male"), "value"] == pytest.approx(by_group["male"])
            gap = by_group["male"] - by_group["female"]
            assert part.loc[(name, "male"), "gap"] == pytest.approx(gap)
            assert part.loc[(name, "female"), "gap"] == pytest.approx(-gap)
    assert (table["gap_low"] < table["gap"]).all()
    assert (table["gap"] < table["gap_high"]).all()
    # The two replicates have the same chance of an error in both sexes: intervals contain zero.
    assert ((table["gap_low"] < 0) & (table["gap_high"] > 0)).mean() >= 0.75


def test_a_subgroup_of_right_answers_is_as_uncertain_as_its_patients_are_few():
    labels, number = np.tile([0, 1], 40), np.arange(80)
    scores = np.where(labels == 1, 0.9, 0.1)
    scores[[1, 5, 9, 13]] = 0.1  # four of the 25 ill men are missed, none of the 15 women
    sexes = np.where(number < 50, "male", "female")
    test = Predictions(number, labels, number, np.stack([1 - scores, scores], axis=1)[None])
    rows, draws = pd.DataFrame({"sex": sexes}), bootstrap.draw(80, 400, 0)
    limits = thresholds(first_replicate(cases(300, 1)), TWO, [0.9])
    limits.loc[:, [name for name in limits if str(name).startswith("threshold")]] = 0.5
    table = gaps(test, rows, limits, TWO, Evaluate(), draws).set_index(["rate", "part"])
    women = table.loc[("sensitivity", "female")]
    assert (women["value"], women["high"]) == (1, 1)
    assert women["low"] == pytest.approx(0.025 ** (1 / 15))  # Clopper and Pearson, 15 of 15
    # Newcombe's interval: that of the women is added to that of the men.
    men = table.loc[("sensitivity", "male")]
    assert women["gap"] == pytest.approx(4 / 25)
    below, above = np.hypot(1 - women["low"], men["high"] - men["value"]), 0.84 - men["low"]
    assert women["gap_low"] == pytest.approx(4 / 25 - below)
    assert women["gap_high"] == pytest.approx(4 / 25 + above)
    # Both sexes have a specificity of 1; that is no certainty that they are equal.
    same = table.loc[("specificity", "male")]
    assert same["gap"] == 0
    assert same["gap_low"] < -0.1
    assert same["gap_high"] > 0.1
    parts = subgroups(test, rows, Evaluate(), draws, metrics.resamples(test, draws))
    area = parts[(parts["metric"] == "auroc") & (parts["part"] == "female")].iloc[0]
    assert (area["mean"], area["high"]) == (1, 1)
    assert area["low"] == pytest.approx(0.025 ** (1 / 15))


def test_a_score_that_equals_the_threshold_is_negative():
    # A network that is certain gives all validation images without the class the score 0.
    labels, own = np.arange(40) % 2, np.arange(40)
    certain = Predictions(own, labels, own, np.eye(2)[[labels]])
    limits = thresholds(certain, TWO, [0.9])
    assert limits["threshold"].tolist() == [0]
    point = operating_points(certain, limits, TWO, Evaluate(), bootstrap.draw(40, 9, 0)).iloc[0]
    assert (point["sensitivity"], point["specificity"]) == (1, 1)


@pytest.mark.parametrize("prevalence", [{}, {"ill": 0.1}])
def test_with_one_ill_patient_nothing_but_the_specificity_has_a_useful_interval(prevalence):
    settings, test = Evaluate(prevalence=prevalence, specificities=[0.9]), cases(80, 2)
    labels = (np.arange(80) < 2).astype(np.int64)  # both images are of the first patient
    test = Predictions(test.ids, labels, test.groups, test.probabilities)
    point = evaluated(settings, test).iloc[0]
    ends = point[["sensitivity", "sensitivity_low", "sensitivity_high"]].tolist()
    assert ends == pytest.approx([0, 0, 0.975])  # Clopper and Pearson, 0 of 1
    assert 0 < point["specificity_low"] < point["specificity"] < point["specificity_high"] < 1
    for name in ("ppv", "npv", "lr_positive", "lr_negative", "mcc", "cost"):
        assert np.isnan([point[f"{name}_low"], point[f"{name}_high"]]).all(), name
    curve = decision_curve(test, TWO, settings, bootstrap.draw(40, 200, 0))
    assert curve["net_benefit"].notna().all()
    assert curve[["low", "high"]].isna().all(axis=None)


def test_a_subgroup_with_few_ill_has_no_sensitivity():
    test = cases(60, 5)
    sexes = np.where((test.labels == 1) & (np.arange(60) > 8), "male", "female")
    limits = thresholds(cases(300, 1), TWO, [0.9])
    rows = pd.DataFrame({"sex": sexes})
    table = gaps(test, rows, limits, TWO, Evaluate(), bootstrap.draw(30, 50, 0))
    few = table[(table["rate"] == "sensitivity") & (table["part"] == "female")].iloc[0]
    assert few["images"] < 10
    assert np.isnan(few["value"])
    assert np.isnan(few["gap"])


def test_the_distribution_of_scores_counts_every_image_by_true_class():
    test = cases(80, 6)
    table = score_distribution(test, TWO)
    assert len(table) == 2 * 20  # bins
    assert set(table["class"]) == {"ill"}
    assert (table["high"] - table["low"]).to_numpy() == pytest.approx(0.05)
    assert table.groupby("true", sort=False)["images"].sum().to_dict() == {
        name: (test.labels == code).sum() for code, name in enumerate(TWO)
    }
    assert table.groupby("true")["share"].sum().tolist() == pytest.approx([1, 1])
    upper = table[(table["true"] == "ill") & (table["low"] >= 0.499)]["share"].sum()
    expected = np.mean(
        [recall_score(test.labels, odds[:, 1] >= 0.5) for odds in test.probabilities]
    )
    assert upper == pytest.approx(expected)
