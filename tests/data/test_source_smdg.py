"""Listing of SMDG-19 in both editions, and its faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from data_trees import check_complete, fundus_pytorch, reasons, write
from medscale.base.errors import MedscaleError
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.kinds.smdg import patient, source_set
from medscale.data.settings import Source


def smdg(root: Path, classes: list[str] | None = None) -> Inventory:
    return scan(Source(kind="smdg", path=root), classes)


def test_fundus_pytorch_as_it_comes(tmp_path: Path) -> None:
    root = fundus_pytorch(tmp_path)
    write(root / "val/1/OIA-ODIR-TRAIN-7.png", 99)
    write(root / "train/2/BEH-9.png", 98)
    (root / "train/0/Thumbs.db").write_bytes(b"x")
    inventory = smdg(root)
    assert inventory.classes == ["normal", "glaucoma"]
    assert len(inventory.rows) == 25
    row = inventory.rows.set_index("path").loc["val/1/OIA-ODIR-TRAIN-7.png"]
    assert (row["label"], row["split_published"], row["source"]) == (
        "glaucoma",
        "val",
        "OIA-ODIR-TRAIN",
    )
    assert row["group"] is None
    assert reasons(inventory) == {
        "train/2/BEH-9.png": "class not in the study",
        "train/0/Thumbs.db": "hidden file or folder",
    }
    check_complete(root, inventory)


def test_fundus_pytorch_below_wrapper_folders(tmp_path: Path) -> None:
    fundus_pytorch(tmp_path / "archive" / "fundus")
    assert len(smdg(tmp_path).rows) == 24


@pytest.mark.parametrize("missing", ["test", "train/1"])
def test_incomplete_fundus_pytorch_names_missing_files_and_the_command(
    tmp_path: Path, missing: str
) -> None:
    root = fundus_pytorch(tmp_path)
    shutil.rmtree(root / missing)
    with pytest.raises(MedscaleError, match=f"no images in .*{missing}") as caught:
        smdg(root)
    assert "kaggle datasets download -d sabari50312/fundus-pytorch" in str(caught.value)


def parent_set(root: Path, name: str, repeats_images: bool, storage: str) -> Path:
    table = pd.DataFrame(
        [
            ("BEH-1", 0, "IM1.JPG", None, None, None, None),
            ("OIA-ODIR-TRAIN-1", 1, "12_left.jpg", None, "M", 60, "OS"),
            ("OIA-ODIR-TEST-ONLINE-1", 0, "12_right.jpg", None, "M", 60, "OD"),
            ("PAPILA-1", 1, "2", "PAPILA-2", "F", 71.5, "OD"),
            ("PAPILA-2", -1, "2", "PAPILA-2", "F", 71.5, "OS"),
            ("CRFO-v4-3", 1, "Glaucoma-P_1-Left Eye", None, None, None, "OS"),
        ],
        columns=["names", "types", "original_name", "patient_id", "sex", "age", "eye"],
    )
    table["fundus"] = [storage.format(n) for n in table["names"]]
    for number, image in enumerate(table["names"]):
        write(
            root / "full-fundus" / ("full-fundus" if repeats_images else "") / f"{image}.png",
            number,
        )
    write(root / "optic-disc" / "optic-disc" / "BEH-1.png", 77)
    table.to_csv(root / name, index=False)
    return root


@pytest.mark.parametrize("name", ["metadata.csv", "metadata - standardized.csv"])
@pytest.mark.parametrize("storage", ["/full-fundus/{}.png", "/full-fundus/full-fundus/{}.png"])
@pytest.mark.parametrize("repeats_images", [True, False])
def test_parent_set(tmp_path: Path, name: str, storage: str, repeats_images: bool) -> None:
    inventory = smdg(parent_set(tmp_path, name, repeats_images, storage))
    rows = inventory.rows.assign(name=[Path(p).stem for p in inventory.rows["path"]]).set_index(
        "name"
    )
    assert rows["label"].to_dict() == {
        "BEH-1": "normal",
        "OIA-ODIR-TRAIN-1": "glaucoma",
        "OIA-ODIR-TEST-ONLINE-1": "normal",
        "PAPILA-1": "glaucoma",
        "CRFO-v4-3": "glaucoma",
    }
    assert rows["group"]["OIA-ODIR-TRAIN-1"] == rows["group"]["OIA-ODIR-TEST-ONLINE-1"] == "ODIR:12"
    assert rows["group"]["PAPILA-1"] == "PAPILA:PAPILA-2"
    assert rows["group"]["BEH-1"] is None
    assert rows["age"]["PAPILA-1"] == 71.5
    assert rows["split_published"].isna().all()
    assert sorted(reasons(inventory).values()) == [
        "not listed",
        "suspect",
        "table that is read",
    ]
    assert inventory.notes == [
        "Images of suspects (neither normal nor glaucoma), which are left out: 1."
    ]
    check_complete(tmp_path, inventory)


def test_parent_set_with_images_missing_is_incomplete(tmp_path: Path) -> None:
    root = parent_set(tmp_path, "metadata.csv", True, "/full-fundus/{}.png")
    (root / "full-fundus/full-fundus/BEH-1.png").unlink()
    with pytest.raises(MedscaleError, match="1 of the 6 images that the CSV lists are missing"):
        smdg(root)


def test_fundus_pytorch_takes_patients_from_the_parents_table(tmp_path: Path) -> None:
    root = fundus_pytorch(tmp_path)
    write(root / "train/0/OIA-ODIR-TRAIN-1.png", 50)
    table = {
        "names": ["OIA-ODIR-TRAIN-1"],
        "types": [0],
        "fundus": ["x"],
        "original_name": ["31_left.jpg"],
    }
    pd.DataFrame(table).to_csv(root / "metadata.csv", index=False)
    rows = smdg(root).rows.set_index("path")
    assert rows.loc["train/0/OIA-ODIR-TRAIN-1.png", "group"] == "ODIR:31"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names,types\nA-1,0\n", "no column fundus"),
        ("names,types,fundus\nA-1,0,a\nA-1,1,b\n", "A-1 occurs in 2 rows"),
        ("\0\x89PNG,,\n", "no column names"),
        ("", "cannot be read as a CSV"),
    ],
)
def test_a_broken_table_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metadata.csv").write_text(text)
    write(tmp_path / "full-fundus/A-1.png", 1)
    with pytest.raises(MedscaleError, match=message):
        smdg(tmp_path)


def test_names_tell_source_and_patient() -> None:
    assert source_set("x/OIA-ODIR-TEST-OFFLINE-12.png") == "OIA-ODIR-TEST-OFFLINE"
    assert source_set("photo.png") == "unknown"
    assert patient("OIA-ODIR-TRAIN", "0_right.jpg", None) == "ODIR:0"
    assert patient("BEH", "12_left.jpg", None) is None


def test_unknown_kind_and_classes(tmp_path: Path) -> None:
    with pytest.raises(
        MedscaleError,
        match=r"no dataset kind 'smgd'; did you mean 'smdg'\? there are: folder, isic2017, rsna, ",
    ):
        scan(Source(kind="smgd", path=tmp_path), None)
    with pytest.raises(MedscaleError, match="classes of SMDG-19 are normal, glaucoma"):
        smdg(fundus_pytorch(tmp_path), ["healthy", "glaucoma"])
    assert smdg(tmp_path, ["glaucoma", "normal"]).classes == ["glaucoma", "normal"]
