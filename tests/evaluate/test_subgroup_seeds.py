"""Subgroups and operating points of several replicates, and without validation images."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from medscale.config.sections import Evaluate
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.operating import operating_points, thresholds
from medscale.evaluate.replicates import Predictions
from medscale.evaluate.subgroups import parts, subgroups


def predicted(images: int, seeds: int) -> Predictions:
    """Return predictions of replicates, one better than the other, two images a patient."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, images)
    noise = rng.normal(0, np.linspace(0.5, 2, seeds)[:, None], (seeds, images))
    positive = 1 / (1 + np.exp(-(2 * labels - 1 + noise)))
    odds = np.stack([1 - positive, positive], axis=2)
    return Predictions(np.arange(images), labels, np.arange(images) // 2, odds)


def test_a_subgroups_interval_is_of_the_mean_over_replicates():
    test = predicted(120, 2)
    rows = pd.DataFrame({"sex": np.where(np.arange(120) % 4 < 2, "f", "m")})
    draws = bootstrap.draw(60, 50, 0)
    table = subgroups(test, rows, Evaluate(), draws, metrics.resamples(test, draws))
    women = (rows["sex"] == "f").to_numpy()

    def means(images: np.ndarray) -> list[float]:
        """The metrics of some images, drawn repeatedly, mean over both replicates."""
        labels, scores = test.labels[images], test.probabilities[:, images, 1]
        values = [
            (
                accuracy_score(labels, seed > 0.5),
                balanced_accuracy_score(labels, seed > 0.5),
                roc_auc_score(labels, seed),
            )
            for seed in scores
        ]
        return np.mean(values, axis=0).tolist()

    drawn = [means(np.repeat(np.arange(120), counts[test.groups] * women)) for counts in draws]
    ends = np.quantile(drawn, [0.025, 0.975], axis=0)
    own = table[table["part"] == "f"]
    assert own["metric"].tolist() == ["accuracy", "balanced_accuracy", "auroc"]
    assert own["mean"].to_numpy() == pytest.approx(means(np.flatnonzero(women)))
    assert own["low"].to_numpy() == pytest.approx(ends[0])
    assert own["high"].to_numpy() == pytest.approx(ends[1])


def test_subgroups_are_in_the_order_of_their_names_with_the_unknown_last():
    names = ["view z", "unknown", "view a", None, "view m", "view a"]
    found = list(parts(pd.DataFrame({"view": names}), Evaluate(subgroups=["view", "other"])))
    assert [name for _, name, _ in found] == ["view a", "view m", "view z", "unknown"]
    assert found[-1][2].tolist() == [False, True, False, True, False, False]


def test_ages_in_words_are_subgroups_of_their_own():
    """A table of one's own with 61 and 90+ has a column of words."""
    found = list(parts(pd.DataFrame({"age": ["61", "90+", None, "61"]}), Evaluate()))
    assert [name for _, name, _ in found] == ["61", "90+", "unknown"]
    assert found[0][2].tolist() == [True, False, False, True]
    found = list(parts(pd.DataFrame({"age": [61, np.nan, 33]}), Evaluate(age_bands=[])))
    assert [name for _, name, _ in found] == ["known", "unknown"]


def test_whole_numbers_have_the_names_that_held_out_sources_have():
    """A column of numbers with a missing one holds floats, such as 3.0 for a hospital's number."""
    rows = pd.DataFrame({"centre": [3.0, np.nan, 12.0, 3.5], "kept": [True, False, True, True]})
    found = list(parts(rows, Evaluate(subgroups=["centre", "kept"])))
    assert [name for _, name, _ in found] == ["12", "3", "3.5", "unknown", "False", "True"]


def test_without_validation_images_of_other_classes_rates_are_undefined():
    test = predicted(40, 2)
    val = test.part(test.labels == 1)
    limits = thresholds(val, ["well", "ill"], [0.9])
    assert limits.filter(like="threshold").isna().all(axis=None)
    row = operating_points(test, limits, ["well", "ill"], Evaluate(), bootstrap.draw(20, 20, 0))
    undefined = ("sensitivity", "specificity", "ppv", "npv", "lr_positive", "lr_negative", "cost")
    columns = [f"{name}{end}" for name in undefined for end in ("", "_low", "_high")]
    assert row[columns].isna().all(axis=None)
    assert (row["positives"] + row["negatives"]).tolist() == [40]
