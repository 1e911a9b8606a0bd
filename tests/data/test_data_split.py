"""Splits: no group is divided, every image is used, shares are near the configured ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medscale.base.errors import MedscaleError
from medscale.data.audit_notes import _note_on_unknown_sources
from medscale.data.settings import SPLITS, Split
from medscale.data.split import assign, balanced_rows, check_listed

SHARES = st.sampled_from([(0.7, 0.1, 0.2), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33), (0.8, 0.1, 0.1)])


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """30 to 300 images of up to 4 classes in groups of up to 8, most of them of one class."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes, largest = draw(st.integers(2, 4)), draw(st.integers(1, 8))
    sizes = rng.integers(1, largest + 1, draw(st.integers(30, 60)))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    image_labels = rng.integers(0, classes, len(sizes))
    labels = np.where(
        rng.random(len(groups)) < 0.1, rng.integers(0, classes, len(groups)), image_labels[groups]
    )
    return pd.DataFrame(
        {
            "label": [f"c{v}" for v in labels],
            "group": [f"g{v}" for v in groups],
            "split_published": None,
        }
    )


def settings_of(shares: tuple[float, float, float], mode: str = "grouped", seed: int = 0) -> Split:
    return Split(mode=mode, train=shares[0], val=shares[1], test=shares[2], seed=seed)  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(rows=tables(), shares=SHARES, seed=st.integers(0, 99))
def test_grouped_keeps_groups_whole_and_shares_near(
    rows: pd.DataFrame, shares: tuple[float, float, float], seed: int
) -> None:
    splits = assign(rows, settings_of(shares, seed=seed))
    assert set(splits) == set(SPLITS)
    assert splits.notna().all()
    assert splits.groupby(rows["group"]).nunique().max() == 1
    largest = rows["group"].value_counts().max()
    for share, split in zip(shares, SPLITS, strict=True):
        assert abs((splits == split).sum() - share * len(rows)) <= largest + rows["label"].nunique()
    groups = rows.drop_duplicates(["label", "group"])["label"].value_counts()
    splits_per_label = splits.groupby(rows["label"]).nunique()
    one_class = rows.groupby("group")["label"].nunique().max() == 1
    assert all(
        splits_per_label[label] == 3 for label in groups.index if one_class and groups[label] >= 3
    )
    assert splits.equals(assign(rows, settings_of(shares, seed=seed)))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(10, 200), min_size=2, max_size=5),
    shares=SHARES,
    seed=st.integers(0, 99),
)
def test_random_is_within_one_image_a_class(
    counts: list[int], shares: tuple[float, float, float], seed: int
) -> None:
    labels = np.repeat([f"c{i}" for i in range(len(counts))], counts)
    rows = pd.DataFrame({"label": labels, "group": "all", "split_published": None})
    splits = assign(rows, settings_of(shares, "random", seed))
    for number, count in enumerate(counts):
        class_counts = splits[rows["label"] == f"c{number}"].value_counts()
        for share, split in zip(shares, SPLITS, strict=True):
            assert abs(class_counts[split] - share * count) <= 1


def test_the_seed_decides() -> None:
    rows = pd.DataFrame(
        {"label": ["a", "b"] * 50, "group": [str(i) for i in range(100)], "split_published": None}
    )
    first, second = (assign(rows, settings_of((0.7, 0.1, 0.2), seed=seed)) for seed in (0, 1))
    assert not first.equals(second)
    assert (
        first.value_counts().to_dict()
        == second.value_counts().to_dict()
        == {"train": 70, "test": 20, "val": 10}
    )


def test_a_rare_class_stands_in_every_split() -> None:
    rows = pd.DataFrame(
        {
            "label": ["a"] * 97 + ["b"] * 3,
            "group": [str(i) for i in range(100)],
            "split_published": None,
        }
    )
    splits = assign(rows, settings_of((0.7, 0.1, 0.2)))
    assert sorted(splits[97:]) == sorted(SPLITS)


def test_published_is_taken_as_it_is() -> None:
    published = ["train", "val", "test", "train"]
    rows = pd.DataFrame(
        {"label": ["a", "b", "a", "b"], "group": ["1", "1", "1", "2"], "split_published": published}
    )
    assert list(assign(rows, Split(mode="published"))) == published


@pytest.mark.parametrize(
    ("labels", "published", "mode", "message"),
    [
        (
            "abab",
            ["train", "val", "train", "val"],
            "published",
            r"has no test split \(it has train, val\)",
        ),
        ("abab", [None] * 4, "published", r"no train, test split \(it has none\)"),
        ("aaab", ["train", "val", "test", "test"], "published", "class 'b' has no training images"),
        ("ab", [None] * 2, "random", "val split is empty"),
    ],
)
def test_an_impossible_split_is_one_message(
    labels: str, published: list[str | None], mode: str, message: str
) -> None:
    rows = pd.DataFrame(
        {"label": list(labels), "group": list("wxyz")[: len(labels)], "split_published": published}
    )
    with pytest.raises(MedscaleError, match=message):
        assign(rows, Split(mode=mode))  # type: ignore[arg-type]


def test_a_held_out_value_that_no_image_has_is_one_message() -> None:
    rows = pd.DataFrame({"label": [*"ab"], "group": [*"12"], "scanner": ["x", None]})
    with pytest.raises(MedscaleError, match=r"no image has this scanner; there are: x$"):
        assign(rows, Split(mode="source", column="scanner", held_out="y"))


def test_a_held_out_number_is_its_word_and_images_without_one_are_counted() -> None:
    """A column of numbers with an empty cell holds 1.0 where the table has 1."""
    numbers = range(40)
    rows = pd.DataFrame(
        {
            "label": [*"ab"] * 20,
            "group": [f"g{number}" for number in numbers],
            "centre": [None, *(number % 3 for number in numbers[1:])],
        }
    )
    assert rows["centre"].dtype == "float64"
    settings = Split(mode="source", column="centre", held_out="1")
    splits = assign(rows, settings)
    assert rows.index[splits == "test"].tolist() == [*range(1, 40, 3)]
    index = rows.assign(split=splits)
    assert _note_on_unknown_sources(index.dropna(), settings) == []
    (note,) = _note_on_unknown_sources(index, settings)
    assert note == (
        "Images of the training and validation splits without a known centre: 1. "
        "Some may be of '1', which is held out."
    )


def test_listed_images_are_divided_before_they_are_read() -> None:
    published = ["train", "val", "test", None, "train", "test"]
    rows = pd.DataFrame(
        {"path": [*"uvwxyz"], "label": [*"ababba"], "group": None, "split_published": published}
    )
    divided = check_listed(rows, Split(mode="published"))
    assert divided is not None
    assert divided["path"].tolist() == divided["group"].tolist() == [*"uvwyz"]
    assert divided["split"].tolist() == ["train", "val", "test", "train", "test"]
    with pytest.raises(MedscaleError, match="no test split"):
        check_listed(rows.drop([2, 5]), Split(mode="published"))
    # The headers of the images may have the column.
    assert check_listed(rows, Split(mode="source", column="sex", held_out="female")) is None
    assert set(assign(rows, Split(mode="external"))) == {"test"}


def test_one_patient_cannot_be_divided() -> None:
    rows = pd.DataFrame({"label": ["a", "b"] * 5, "group": "p", "split_published": None})
    with pytest.raises(
        MedscaleError, match="10 images; patients, or groups of near-duplicates: 1;"
    ):
        assign(rows, Split())


@settings(max_examples=80, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_balanced_classes_have_the_size_of_the_smallest(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    ordered = [f"c{number}" for number, count in enumerate(counts) for _ in range(count)]
    labels = pd.Series(data.draw(st.permutations(ordered)))
    stay = balanced_rows(labels, seed)
    assert labels[stay].value_counts().to_dict() == {
        f"c{number}": min(counts) for number in range(len(counts))
    }
    assert np.array_equal(stay, balanced_rows(labels, seed))


def test_balancing_chooses_at_random_by_the_seed() -> None:
    labels = pd.Series(["a"] * 100 + ["b"] * 50)
    first, second = balanced_rows(labels, 0), balanced_rows(labels, 1)
    assert first[100:].all()
    assert not np.array_equal(first, second)
    assert 15 <= first[:50].sum() <= 35  # not the first 50 by path
