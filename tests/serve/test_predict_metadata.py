"""Metadata of images to predict, from tables, headers and callers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import medscale
from data_trees import picture
from medscale.base.errors import MedscaleError
from medscale.data.metadata import Encoding, apply
from medscale.serve import inputs
from raw_study import FP32, values


def test_metadata_is_given_or_read_from_headers_or_unknown(study_result) -> None:
    predictor = medscale.load(study_result.result)
    image = np.asarray(picture(3, (60, 60)))
    unknown, with_metadata = (
        predictor.predict(image),
        predictor.predict(image, {"age": 61, "sex": "female"}),
    )
    assert values([unknown]).tolist() != values([with_metadata]).tolist()
    assert (unknown.unknown, with_metadata.unknown) == (["age", "sex"], [])
    assert predictor.predict(image, {"sex": "male"}).unknown == ["age"]
    missing = {"age": np.nan, "sex": pd.NA}  # as pandas writes what is missing
    for facts in (missing, [missing]):
        (of_missing,) = predictor.predict([image], facts)
        assert (of_missing.unknown, of_missing.probabilities) == (
            ["age", "sex"],
            unknown.probabilities,
        )
    batch_predictions = predictor.predict(
        [image, image], [{}, {"age": 61, "sex": "female"}], batch_size=1
    )
    assert [prediction.source for prediction in batch_predictions] == ["image 1", "image 2"]
    np.testing.assert_allclose(
        values(batch_predictions), values([unknown, with_metadata]), atol=FP32
    )
    image_paths = [
        study_result.raw / path for path in study_result.index["path"] if path.endswith(".dcm")
    ][:2]
    table = pd.DataFrame({"path": [str(image_paths[0])], "age": [None], "sex": [None]})
    hidden, from_headers = predictor.predict(image_paths, table), predictor.predict(image_paths)
    assert (hidden[0].unknown, from_headers[0].unknown) == (["age", "sex"], [])
    # the table wins over the header, also where it has no value
    assert hidden[0].probabilities != from_headers[0].probabilities
    np.testing.assert_allclose(values(hidden[1:]), values(from_headers[1:]), atol=FP32)
    for bad_argument, message in (
        ({"site": "arm"}, "site is not known; this network takes age, sex"),
        ({"sex": "femal"}, "sex is 'femal'; the training images have female, male. Leave out"),
        ({"age": "old"}, "age is 'old', where the network takes a number"),
        ({"age": np.inf}, "age is inf, where the network takes a number"),
        ({"age": 10**400}, "0, where the network takes a number"),
        ([{}, {}], "metadata of 2 images were given with 1"),
    ):
        with pytest.raises(MedscaleError, match=message):
            predictor.predict(image, bad_argument)


def test_a_table_of_metadata_must_name_the_images(
    study_result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor, image = medscale.load(study_result.result), np.asarray(picture(3, (60, 60)))
    names = [f"im{number:02d}.png" for number in range(24)]
    lines = [f"data/images/{name},{30 + number}" for number, name in enumerate(names)]
    (tmp_path / "facts.csv").write_text("\n".join(["path,age", *lines]) + "\n")
    table = inputs.parse_metadata(str(tmp_path / "facts.csv"))
    message = (
        r"names none of the 24 images \(its first path: data/images/im00.png; the first image: "
        r"im00.png\)"
    )
    with pytest.raises(MedscaleError, match=message):
        list(predictor.stream([(name, image) for name in names], table))
    for paths in (["./im00.png", "im00.png"], ["im00.png", None]):
        with pytest.raises(MedscaleError, match="column `path`, with each image once"):
            inputs.metadata_by_image(names[:2], table[:2].assign(path=paths))
    with pytest.raises(MedscaleError, match="column `path`, with each image once"):
        inputs.metadata_by_image(names[:2], table[["age"]])
    table = table[:2].assign(path=["./im00.png", "other.png"])
    facts = inputs.metadata_by_image(names[:2], table)
    assert facts == [{"age": "30"}, {}]
    assert "names 1 of the 2 images; 1 of its 2 paths are of no image" in caplog.text


def test_metadata_with_two_values_are_refused() -> None:
    with pytest.raises(MedscaleError, match="--metadata gives age more than once"):
        inputs.parse_metadata("age=61, sex=female, age =62")


def test_a_table_of_metadata_is_read_as_a_table_of_images_is(tmp_path: Path) -> None:
    """Spreadsheets write a byte order mark, semicolons and decimal commas."""
    file = tmp_path / "facts.csv"
    file.write_text("path;age;sex\na,1.png;61,5;NA\nb.png;;female\n", encoding="utf-8-sig")
    table = inputs.parse_metadata(str(file))
    assert inputs.metadata_by_image(["a,1.png", "b.png"], table) == [
        {"age": "61.5", "sex": None},
        {"age": None, "sex": "female"},
    ]
    file.write_text("image,age\na.png,1\n")
    with pytest.raises(MedscaleError, match="no column path; it has: image, age"):
        inputs.parse_metadata(str(file))


def test_text_of_a_number_is_the_number(study_result) -> None:
    predictor = medscale.load(study_result.result)
    np.testing.assert_array_equal(
        predictor.features([{"age": "33"}]), predictor.features([{"age": 33}])
    )
    coded = Encoding(column="site", words=["12", "7"])
    features = apply([coded], pd.DataFrame({"site": [7.0, 7, "7", 12.0, None]}, dtype=object))
    assert features.argmax(axis=1).tolist() == [1, 1, 1, 0, 2]
