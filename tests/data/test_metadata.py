"""Metadata as features: fitted on training images alone; unknown has its own feature."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_trees import APART, index_and_summary, listed, write
from medscale.base.errors import MedscaleError
from medscale.data.metadata import Encoding, apply, encode, fit


def rows(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"split": ["train", "train", "train", "test", "test"], **columns})


def test_numbers_are_standardized_by_the_training_split_and_unknown_is_reported() -> None:
    features = encode(rows(age=[40.0, 60.0, None, 70.0, None]), ["age"])
    np.testing.assert_allclose(features, [[-1, 1], [1, 1], [0, 0], [2, 1], [0, 0]])
    assert features.dtype == np.float32


def test_words_get_a_feature_each_and_what_training_never_saw_counts_as_unknown() -> None:
    features = encode(rows(view=["PA", "AP", None, "LL", "PA"]), ["view"])
    np.testing.assert_array_equal(features, [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]])


def test_columns_stand_side_by_side_and_none_is_none() -> None:
    table = rows(age=[40.0, 60.0, None, 70.0, None], sex=["f", "m", "f", None, "m"])
    assert encode(table, ["age", "sex"]).shape == (5, 5)
    assert encode(table, []) is None


def test_one_value_alone_divides_by_nothing() -> None:
    """The standard deviation of three times 0.1 is 1.4e-17, by which 0.2 would become 7e15."""
    for value in (5.0, 0.1):
        features = encode(rows(age=[value, value, value, value + 1, None]), ["age"])
        np.testing.assert_allclose(features[:, 0], [0, 0, 0, 1, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["site"], "have: age, sex$"),
        (["age"], "no training image has a value of 'age'"),
        (["sex"], "no training image has a value of 'sex'"),
    ],
)
def test_an_unusable_column_is_reported(columns: list[str], message: str) -> None:
    table = rows(age=[None, None, None, 3.0, 4.0], sex=[None, None, None, "f", "m"])
    with pytest.raises(MedscaleError, match=message):
        encode(table.astype({"age": "float64"}), columns)


def test_own_numbers_stay_numbers_from_the_table_to_the_prediction(tmp_path: Path) -> None:
    root = tmp_path / "data"
    lines = ["path,label,patient,age"]
    for number in range(24):
        path = write(root / "images" / f"im{number:02d}.png", number)
        lines.append(f"images/{path.name},{'ab'[number % 2]},P{number // 2},{30 + number}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    index, _ = index_and_summary(root, listed(root), APART)
    assert index["age"].tolist() == list(range(30, 54))
    (encoding,) = fit(index, ["age"])
    training = index.loc[index["split"] == "train", "age"]
    assert (encoding.words, encoding.features) == (None, 2)
    assert encoding.mean == pytest.approx(training.mean())
    assert encoding.scale == pytest.approx(training.std(ddof=0))
    restored_encoding = Encoding.model_validate_json(encoding.model_dump_json())
    features = apply([restored_encoding], pd.DataFrame({"age": ["33"]}))
    np.testing.assert_allclose(features, [[(33 - encoding.mean) / encoding.scale, 1]], rtol=1e-6)
