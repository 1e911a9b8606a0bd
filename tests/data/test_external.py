"""External images under the class names of a study, and sources that are held out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from data_trees import class_tree
from medscale.base.errors import MedscaleError
from medscale.data.external import external_inventory, match_classes
from medscale.data.index import build_index
from medscale.data.settings import Dask, Source, Split
from medscale.data.split import assign

CLASSES = ["normal", "pneumonia", "nail fungus"]


def test_class_names_match_without_capitals_spaces_and_punctuation(tmp_path: Path) -> None:
    class_tree(tmp_path, {"NORMAL": 2, "Nail_Fungus": 3, "covid": 1})
    inventory = external_inventory(Source(kind="folder", path=tmp_path), CLASSES)
    assert inventory.classes == CLASSES
    assert inventory.rows["label"].value_counts().to_dict() == {"nail fungus": 3, "normal": 2}
    assert inventory.excluded["path"].tolist() == ["covid/0.png"]
    assert inventory.notes == [
        "Class NORMAL is read as normal.",
        "Class Nail_Fungus is read as nail fungus.",
        "Classes that the study does not have are left out: covid 1; if one of them is pneumonia, "
        "match the names by source.labels (or --label THEIRS=OURS).",
        "No image is of class pneumonia, so that nothing can be estimated for it.",
    ]


def test_only_where_a_class_is_missing_another_may_stand_for_it(tmp_path: Path) -> None:
    class_tree(tmp_path, dict.fromkeys((*CLASSES, "covid"), 1))
    notes = external_inventory(Source(kind="folder", path=tmp_path), CLASSES).notes
    assert notes == ["Classes that the study does not have are left out: covid 1."]


def test_other_names_are_given_by_labels() -> None:
    labels = {"1": "pneumonia"}
    assert match_classes(["0", "1"], CLASSES, labels) == labels
    with pytest.raises(MedscaleError, match="the folder has: 0, 1"):
        match_classes(["0", "1"], CLASSES, {"2": "pneumonia"})
    with pytest.raises(MedscaleError, match="the study has: normal, pneumonia, nail fungus"):
        match_classes(["0", "1"], CLASSES, {"1": "covid"})
    assert match_classes(["a-b", "ab"], ["a-b", "ab"], {}) == {"a-b": "a-b", "ab": "ab"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("-1", "1"),
        ("\N{MINUS SIGN}1", "1"),
        ("COVID-", "COVID+"),
        ("HER2", "HER2-"),
        ("<5 mm", ">5 mm"),
        ("0.5", "05"),
        ("1.0", "10"),
    ],
)
def test_a_class_of_another_meaning_is_not_taken_for_one(theirs: str, ours: str) -> None:
    assert match_classes([theirs, ours], [ours, "other"], {}) == {ours: ours}
    assert match_classes([theirs.replace(" ", "_")], [theirs, "other"], {})


def test_a_folder_without_a_class_of_the_study_is_refused(tmp_path: Path) -> None:
    class_tree(tmp_path, {"0": 1, "1": 1})
    with pytest.raises(MedscaleError, match=r"its classes are 0, 1, .* --label THEIRS=OURS"):
        external_inventory(Source(kind="folder", path=tmp_path), CLASSES)


def test_a_table_that_is_not_read_is_named(tmp_path: Path) -> None:
    class_tree(tmp_path, {"images": 2})
    (tmp_path / "list.csv").write_text("file,finding\n0.png,normal\n1.png,pneumonia\n")
    with pytest.raises(MedscaleError, match="its classes are images") as error:
        external_inventory(Source(kind="folder", path=tmp_path), ["normal", "pneumonia"])
    assert "list.csv names 2 of the 2 images and is not read" in str(error.value)


def test_all_external_images_are_test_images_also_of_one_class(tmp_path: Path) -> None:
    class_tree(tmp_path / "raw", {"normal": 3})
    source = Source(kind="folder", path=tmp_path / "raw")
    index = build_index(source, Split(mode="external"), CLASSES, Dask(workers=1), tmp_path)
    assert index["split"].tolist() == ["test"] * 3
    assert index["label"].cat.categories.tolist() == CLASSES


def rows(images: int = 60) -> pd.DataFrame:
    """Return images of three sources; image 0 (a) and image 1 (b) are of one group."""
    numbers = range(images)
    table = pd.DataFrame(
        {
            "label": ["well" if n % 2 else "ill" for n in numbers],
            "group": [f"g{n}" for n in numbers],
            "source": ["abc"[n % 3] for n in numbers],
        }
    )
    table.loc[1, "group"] = "g0"
    return table


def test_a_held_out_source_is_the_test_split_with_its_groups() -> None:
    table = rows()
    splits = assign(table, Split(mode="source", held_out="a"))
    expected = (table["source"] == "a") | (table.index == 1)  # the same patient as image 0
    assert ((splits == "test") == expected).all()
    shares = splits[~expected].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.7 / 0.8, abs=0.03)
    assert shares["val"] == pytest.approx(0.1 / 0.8, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": "d"}, "no image has this source; there are: a, b, c"),
        ({"held_out": "a", "column": "view"}, "no such column; they have: label, group, source"),
    ],
)
def test_a_source_that_does_not_exist_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(MedscaleError, match=message):
        assign(rows(), Split(mode="source", **settings))


@pytest.mark.parametrize("settings", [{"mode": "source"}, {"held_out": "a"}])
def test_mode_source_and_held_out_belong_together(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="mode source and held_out belong together"):
        Split(**settings)


NAMES = ["NA", "nan", "None", "null", "TRUE", "1e3", "007"]  # as programs read values


@pytest.mark.parametrize("as_written", [str, str.lower])
def test_classes_that_are_called_like_values_are_read_as_text(tmp_path, as_written):
    lines = ["path,label", *(f"{n}.png,{as_written(name)}" for n, name in enumerate(NAMES))]
    for number in range(len(NAMES)):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "index.csv").write_text("\n".join(lines))
    rows = external_inventory(Source(kind="folder", path=tmp_path), NAMES).rows
    assert dict(zip(rows["path"], rows["label"], strict=True)) == {
        f"{number}.png": name for number, name in enumerate(NAMES)
    }


def test_a_label_that_settings_match_is_read_even_if_it_looks_missing(tmp_path):
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / name).touch()
    (tmp_path / "index.csv").write_text("path,label\n0.png,NA\n1.png,glaucoma\n2.png,nan\n")
    source = Source(kind="folder", path=tmp_path, labels={"NA": "normal"})
    inventory = external_inventory(source, ["normal", "glaucoma"])
    assert dict(zip(inventory.rows["path"], inventory.rows["label"], strict=True)) == {
        "0.png": "normal", "1.png": "glaucoma",
    }  # fmt: skip
    assert inventory.excluded["path"].tolist() == ["2.png"]  # nan is still a missing label
