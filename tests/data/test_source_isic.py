"""Listing of ISIC 2017: archives, folders by split and class, tables, incomplete downloads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from data_trees import check_complete, index_and_summary, reasons, write
from medscale.base.errors import MedscaleError
from medscale.data.check import left_out_sentences
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.settings import Source, Split

CLASSES = ["nevus", "seborrheic_keratosis", "melanoma"]
TRUTH = {"nevus": "0.0,0.0", "seborrheic_keratosis": "0.0,1.0", "melanoma": "1.0,0.0"}
FIRST = {"Training": 0, "Validation": 1000, "Test_v2": 2000}


def isic(root: Path, classes: list[str] | None = None, **options: object) -> Inventory:
    return scan(Source(kind="isic2017", path=root, options=options), classes)


def archives(root: Path, per_class: int = 2, nested: bool = False, beside: bool = False) -> Path:
    """Write ``each`` images per class and split; a third of ages, half of sexes are unknown."""
    for part, first in FIRST.items():
        name = f"ISIC-2017_{part}_Data"
        folder = root / name / name if nested else root / name
        truth, metadata = (
            "image_id,melanoma,seborrheic_keratosis\n",
            "image_id,age_approximate,sex\n",
        )
        for place, label in enumerate(CLASSES * per_class):
            number = f"ISIC_{first + place:07d}"
            write(folder / f"{number}.jpg", first + place)
            write(folder / f"{number}_superpixels.png", 5000 + first + place)
            truth += f"{number},{TRUTH[label]}\n"
            age = "unknown" if place % 3 == 0 else 30 + place
            metadata += f"{number},{age},{('female', 'unknown')[place % 2]}\n"
        (root / f"ISIC-2017_{part}_Part3_GroundTruth.csv").write_text(truth)
        ((root if beside else folder) / f"{name}_metadata.csv").write_text(metadata)
    return root


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("wrapper", [".", "isic"])
def test_the_archives_as_they_unpack(
    tmp_path: Path, nested: bool, beside: bool, wrapper: str
) -> None:
    archives(tmp_path / wrapper, nested=nested, beside=beside)
    inventory = isic(tmp_path)
    assert inventory.classes == CLASSES
    rows = inventory.rows.assign(
        number=[Path(path).stem for path in inventory.rows["path"]]
    ).set_index("number")
    assert rows.groupby(["split_published", "label"]).size().tolist() == [2] * 9
    assert rows.loc["ISIC_0001001", ["split_published", "label"]].tolist() == [
        "val",
        "seborrheic_keratosis",
    ]
    assert rows.loc["ISIC_0002002", ["split_published", "label"]].tolist() == ["test", "melanoma"]
    assert rows["age"].dtype == float
    assert rows["age"].isna().sum() == 6
    assert rows.loc["ISIC_0000004", "age"] == 34
    assert rows["sex"].value_counts().to_dict() == {"female": 9}
    assert rows["sex"].isna().sum() == 9
    assert set(rows["source"]) == {"ISIC 2017"}
    assert rows["group"].isna().all()
    by_reason = inventory.excluded["reason"].value_counts().to_dict()
    assert by_reason == {"superpixels, not a photograph": 18, "table that is read": 6}
    sentences = left_out_sentences(inventory.excluded)
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "left out, superpixels, not a photograph"
    ]
    assert any("18 images are present of the 2750" in note for note in inventory.notes)
    assert any(
        "Of the 18 images listed the age is known for 12, the sex for 9" in note
        for note in inventory.notes
    )
    check_complete(tmp_path, inventory)


def test_the_index_has_null_for_unknown(tmp_path: Path) -> None:
    index, summary = index_and_summary(
        archives(tmp_path / "raw"), isic(tmp_path / "raw"), Split(mode="published")
    )
    index.to_parquet(tmp_path / "index.parquet")
    index_table = pd.read_parquet(tmp_path / "index.parquet")
    assert index_table["age"].isna().sum() == 6
    assert index_table["sex"].isna().sum() == 9
    assert summary["counts"]["melanoma"] == {"train": 2, "val": 2, "test": 2}


def test_folders_by_split_and_class(tmp_path: Path) -> None:
    for seed, (split, label) in enumerate(
        (split, label) for split in ("train", "valid", "test") for label in CLASSES
    ):
        write(tmp_path / "data" / split / label / f"ISIC_{seed:07d}.jpg", seed)
        write(tmp_path / "data" / split / label / f"ISIC_{seed:07d}_superpixels.png", 100 + seed)
    write(tmp_path / "data/train/other/ISIC_0000099.jpg", 99)
    write(tmp_path / "data/train/loose.jpg", 98)
    inventory = isic(tmp_path)
    assert inventory.classes == CLASSES
    assert inventory.rows.groupby(["split_published", "label"]).size().tolist() == [1] * 9
    assert inventory.rows["age"].isna().all()
    left_out = reasons(inventory)
    assert left_out.pop("data/train/other/ISIC_0000099.jpg") == "class not in the study"
    assert left_out.pop("data/train/loose.jpg") == "outside the class folders"
    assert set(left_out.values()) == {"superpixels, not a photograph"}
    check_complete(tmp_path, inventory)
    shutil.rmtree(tmp_path / "data/valid/nevus")
    with pytest.raises(MedscaleError, match="there is no image in val/nevus"):
        isic(tmp_path)
    assert len(isic(tmp_path, allow_missing=True).rows) == 8


def test_metadata_reach_the_sorted_folders_too(tmp_path: Path) -> None:
    for seed, (split, label) in enumerate(
        (split, label) for split in ("train", "valid", "test") for label in CLASSES
    ):
        write(tmp_path / split / label / f"ISIC_{seed:07d}.jpg", seed)
    text = "image_id,age_approximate,sex\nISIC_0000003,55.0,Male\nISIC_0000004,200,unknown\n"
    (tmp_path / "ISIC-2017_Training_Data_metadata.csv").write_text(text)
    rows = isic(tmp_path).rows.assign(
        number=lambda rows: [Path(path).stem for path in rows["path"]]
    )
    known_metadata = rows.set_index("number")[["age", "sex"]].dropna()
    assert known_metadata.to_dict("index") == {"ISIC_0000003": {"age": 55.0, "sex": "male"}}


def test_a_few_missing_images_are_listed(tmp_path: Path) -> None:
    root = archives(tmp_path, per_class=5)
    (root / "ISIC-2017_Training_Data/ISIC_0000004.jpg").unlink()
    inventory = isic(root)
    assert len(inventory.rows) == 44
    assert reasons(inventory)["ISIC-2017_Training_Data/ISIC_0000004.jpg"] == "listed but missing"
    check_complete(root, inventory)


@pytest.mark.parametrize(
    ("missing_file", "message"),
    [
        ("ISIC-2017_Validation_Part3_GroundTruth.csv", "no ground truth table of the val split"),
        ("ISIC-2017_Test_v2_Data", "15 of the 15 images of the test split are missing"),
    ],
)
def test_an_incomplete_download_names_missing_files_and_the_command(
    tmp_path: Path, missing_file: str, message: str
) -> None:
    root = archives(tmp_path, per_class=5)
    path = root / missing_file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MedscaleError, match=message) as caught:
        isic(root)
    assert "https://isic-challenge-data.s3.amazonaws.com/2017/ISIC-2017_" in str(caught.value)
    inventory = isic(root, allow_missing=True)
    assert len(inventory.rows) == 30
    assert message in inventory.notes[0]
    check_complete(root, inventory)


def test_classes_without_an_image_are_left_out_of_what_is_allowed_to_be_incomplete(
    tmp_path: Path,
) -> None:
    root = archives(tmp_path)
    for part, first in FIRST.items():
        for place in (1, 4):
            (root / f"ISIC-2017_{part}_Data/ISIC_{first + place:07d}.jpg").unlink()
    inventory = isic(root, allow_missing=True)
    assert inventory.classes == ["nevus", "melanoma"]
    assert "there is no image of class seborrheic_keratosis" in inventory.notes[0]


@pytest.mark.parametrize("state", ["gone", "empty", "tables only"])
def test_an_empty_folder_is_always_an_error(tmp_path: Path, state: str) -> None:
    root = tmp_path / "raw"
    if state != "gone":
        root.mkdir()
    if state == "tables only":
        archives(tmp_path / "other")
        for table in (tmp_path / "other").glob("*.csv"):
            shutil.copy(table, root)
    with pytest.raises(MedscaleError, match="Expected ISIC 2017"):
        isic(root, allow_missing=True)


def test_the_listed_duplicates_share_a_group(tmp_path: Path) -> None:
    root = archives(tmp_path, per_class=5)
    pairs = {"ISIC_0012271": "ISIC_0012152", "ISIC_0012175": "ISIC_0012216"}
    for part, numbers in (("Training", pairs.keys()), ("Test_v2", pairs.values())):
        with open(root / f"ISIC-2017_{part}_Part3_GroundTruth.csv", "a") as table:
            for number in numbers:
                write(root / f"ISIC-2017_{part}_Data/{number}.jpg", int(number[-5:]))
                table.write(f"{number},0.0,0.0\n")
    inventory = isic(root)
    groups = inventory.rows.assign(
        number=[Path(path).stem for path in inventory.rows["path"]]
    ).set_index("number")["group"]
    assert (
        groups["ISIC_0012271"]
        == groups["ISIC_0012152"]
        != groups["ISIC_0012175"]
        == groups["ISIC_0012216"]
    )
    assert groups.notna().sum() == 4
    pairs_told = "ISIC_0012271 and ISIC_0012152; ISIC_0012175 and ISIC_0012216."
    assert [pairs_told in note for note in inventory.notes if "duplicates" in note] == [True]
    _, published = index_and_summary(
        root, inventory, Split(mode="published", near_duplicates=False)
    )
    assert published["kept_by_reason"] == {"leak between splits": 4}
    index, _ = index_and_summary(root, inventory)
    assert index.groupby("group")["split"].nunique().max() == 1


def test_what_the_tables_contradict_or_lack_is_left_out(tmp_path: Path) -> None:
    root = archives(tmp_path, per_class=5)
    truth = root / "ISIC-2017_Training_Part3_GroundTruth.csv"
    truth.write_text(
        truth.read_text()
        .replace("ISIC_0000000,0.0,0.0", "ISIC_0000000,1.0,1.0")
        .replace("3,0.0", "3,?", 1)
    )
    data = root / "ISIC-2017_Training_Data"
    write(data / "ISIC_0009999.jpg", 99)
    write(data / "ISIC_0000000_segmentation.png", 98)
    write(data / "ISIC-2017_Training_Data/ISIC_0000001.jpg", 97)
    inventory = isic(root)
    left_out = {
        path: reason for path, reason in reasons(inventory).items() if "superpixels" not in path
    }
    assert {path: reason for path, reason in left_out.items() if not path.endswith(".csv")} == {
        "ISIC-2017_Training_Data/ISIC_0000000.jpg": "no label",
        "ISIC-2017_Training_Data/ISIC_0000003.jpg": "no label",
        "ISIC-2017_Training_Data/ISIC_0009999.jpg": "not listed",
        "ISIC-2017_Training_Data/ISIC_0000000_segmentation.png": "lesion mask, not a photograph",
        f"{2 * 'ISIC-2017_Training_Data/'}ISIC_0000001.jpg": "same image number again",
    }
    check_complete(root, inventory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,melanoma,seborrheic_keratosis\n", "no column image_id"),
        (
            "image_id,melanoma,seborrheic_keratosis\nISIC_0001000,0.0,0.0\n",
            "ISIC_0001000 occurs twice",
        ),
        ("", "cannot be read as a CSV"),
    ],
)
def test_a_broken_table_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    root = archives(tmp_path)
    (root / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text(text)
    with pytest.raises(MedscaleError, match=message):
        isic(root)


def test_wrong_options_and_classes(tmp_path: Path) -> None:
    root = archives(tmp_path)
    with pytest.raises(
        MedscaleError,
        match=r"has the option allow_missing: False . True; found in source.options: seed",
    ):
        isic(root, seed=1)
    with pytest.raises(
        MedscaleError,
        match=r"allow_missing: False . True; found in source.options: allow_missing: yes",
    ):
        isic(root, allow_missing="yes")
    with pytest.raises(MedscaleError, match=r"classes of ISIC 2017 are nevus, .* not naevus"):
        isic(root, ["naevus", "melanoma"])
    inventory = isic(root, ["melanoma", "nevus"])
    assert inventory.classes == ["melanoma", "nevus"]
    assert len(inventory.rows) == 12
