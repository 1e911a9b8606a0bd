"""Folds: groups stay whole, classes keep their shares, and each image is tested once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medscale.base.errors import MedscaleError
from medscale.data import folds
from medscale.data.settings import Split
from medscale.data.split import assign_folds, check_listed


def table(groups: int, seed: int = 0, shares: tuple[float, ...] = (0.6, 0.3, 0.1)) -> pd.DataFrame:
    """Images of groups of one to four, each group of one class."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, groups)
    codes = rng.choice(len(shares), groups, p=shares)
    codes[: 10 * len(shares)] = np.tile(np.arange(len(shares)), 10)  # each class has ten groups
    names = np.repeat(np.arange(groups), sizes)
    labels = [f"c{code}" for code in np.repeat(codes, sizes)]
    rows = pd.DataFrame({"label": labels, "group": [f"g{name}" for name in names]})
    return rows.assign(path=[f"{number}.png" for number in range(len(rows))])


@settings(max_examples=25, deadline=None)
@given(groups=st.integers(60, 150), count=st.integers(2, 10), seed=st.integers(0, 99))
def test_folds_are_grouped_stratified_and_the_same_each_time(
    groups: int, count: int, seed: int
) -> None:
    rows, division = table(groups, seed), Split(folds=count, seed=seed)
    columns = assign_folds(rows, division)
    assert columns.equals(assign_folds(rows, division))
    whole = rows.join(columns)
    folds.check(whole)
    assert whole.groupby("group")["fold"].nunique().max() == 1
    largest = rows["group"].value_counts().max()
    by_class = pd.crosstab(rows["label"], columns["fold"])
    assert (by_class.max(axis=1) - by_class.min(axis=1) <= 2 * largest).all()
    for fold in range(1, count + 1):
        split = folds.of_fold(whole, fold)["split"]
        assert ((split == "test") == (whole["fold"] == fold)).all()
        assert set(split) == {"train", "val", "test"}
        assert split.groupby(whole["group"]).nunique().max() == 1
        assert abs((split == "val").sum() - 0.1 * len(rows)) <= largest + 3
        assert set(rows["label"]) == set(rows.loc[split == "train", "label"])


def test_another_seed_gives_other_folds() -> None:
    rows = table(90)
    folds_a, folds_b = (assign_folds(rows, Split(folds=5, seed=seed))["fold"] for seed in (0, 1))
    assert not folds_a.equals(folds_b)


def test_leaks_are_found() -> None:
    rows = table(90)
    whole = rows.join(assign_folds(rows, Split(folds=3)))
    leaking = whole.copy()
    trained = leaking.index[leaking["split_fold_2"] == "train"][0]
    leaking.loc[trained, "group"] = leaking.loc[leaking["split_fold_2"] == "val", "group"].iloc[0]
    with pytest.raises(MedscaleError, match="in 2 splits"):
        folds.check(leaking)
    untested = whole.copy()
    untested.loc[whole["group"] == "g0", "split_fold_1"] = "train"
    untested.loc[whole["group"] == "g0", "split_fold_2"] = "train"
    untested.loc[whole["group"] == "g0", "split_fold_3"] = "train"
    with pytest.raises(MedscaleError, match="not tested by exactly one fold"):
        folds.check(untested)
    folds.check(rows)  # without folds there is nothing to check


def test_too_few_groups_of_a_class_are_refused_before_any_image_is_read() -> None:
    rows = table(60)
    with pytest.raises(MedscaleError, match=r"split.folds is 50, but a class .* 'c2' has 1\d;"):
        check_listed(rows, Split(folds=50))


def test_columns_of_the_images_that_folds_would_overwrite_are_refused() -> None:
    for name in ("fold", "split_fold_1"):
        with pytest.raises(MedscaleError, match=f"have a column '{name}'"):
            assign_folds(table(60).assign(**{name: 1}), Split(folds=3))


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_shares_follow_from_the_number_of_folds(count: int) -> None:
    division = Split(folds=count)
    assert division.test == 1 / count
    assert division.val == 0.1
    assert Split.model_validate_json(division.model_dump_json()) == division
    assert Split(folds=count, train=None, val=0.05, test=None).val == 0.05
    assert "folds" not in Split().model_dump_json()  # a new setting makes no index again


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 1}, "greater than or equal to 2"),
        ({"folds": 5, "mode": "published"}, "folds need mode grouped, not published"),
        ({"folds": 5, "mode": "random"}, "folds need mode grouped, not random"),
        ({"folds": 5, "mode": "source", "held_out": "a"}, "folds need mode grouped, not source"),
        ({"folds": 4, "test": 0.2}, "test is 0.2, but each of 4 folds tests 1/4"),
        ({"folds": 5, "train": 0.7, "val": 0.2}, "must be 1, not 1.1"),
    ],
)
def test_nonsense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Split.model_validate(values)
