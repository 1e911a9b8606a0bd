"""Listing of raw folders: SMDG-19 in both editions, any image folder, and their faults."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_trees import check_complete, class_tree, fundus_pytorch, reasons, write
from medscale.base.errors import MedscaleError
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.kinds.smdg import patient, source_set
from medscale.data.settings import Source


def folder(root: Path, classes: list[str] | None = None) -> Inventory:
    return scan(Source(kind="folder", path=root), classes)


def smdg(root: Path, classes: list[str] | None = None) -> Inventory:
    return scan(Source(kind="smdg", path=root), classes)


# SMDG-19


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
        "not an image by its name",
        "not listed",
        "suspect",
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


@pytest.mark.parametrize("kind", ["smdg", "folder"])
def test_missing_and_empty_folders_say_what_is_expected(tmp_path: Path, kind: str) -> None:
    for path, state in (
        (tmp_path / "gone", "does not exist"),
        (tmp_path, "Found: an empty folder"),
    ):
        with pytest.raises(MedscaleError, match=state) as caught:
            scan(Source(kind=kind, path=path), None)
        assert "Expected" in str(caught.value)
    (tmp_path / "file").write_text("x")
    with pytest.raises(MedscaleError, match="is not a folder"):
        scan(Source(kind=kind, path=tmp_path / "file"), None)


def test_unknown_kind_and_classes(tmp_path: Path) -> None:
    with pytest.raises(
        MedscaleError,
        match=r"no dataset kind 'smgd'; did you mean 'smdg'\? there are: folder, isic2017, rsna, ",
    ):
        scan(Source(kind="smgd", path=tmp_path), None)
    with pytest.raises(MedscaleError, match="classes of SMDG-19 are normal, glaucoma"):
        smdg(fundus_pytorch(tmp_path), ["healthy", "glaucoma"])
    assert smdg(tmp_path, ["glaucoma", "normal"]).classes == ["glaucoma", "normal"]


# any image folder


def test_class_folders_with_real_names(tmp_path: Path) -> None:
    names = [
        "Ba  Cellulitis/a (1).JPG",
        "Ba  Cellulitis/é à.Png",
        "Éruption/x.JPEG",
        "Éruption/sub/y.png",
    ]
    for number, name in enumerate(names):
        write(tmp_path / name, number)
    (tmp_path / "Éruption/notes.txt").write_text("x")
    (tmp_path / "Ba  Cellulitis/Thumbs.db").write_text("x")
    (tmp_path / "__MACOSX/Éruption").mkdir(parents=True)
    (tmp_path / "__MACOSX/Éruption/._x.JPEG").write_text("x")
    (tmp_path / "Éruption/._x.JPEG").write_text("x")
    (tmp_path / "Éruption/phone.HEIC").write_text("x")
    write(tmp_path / "stray.png", 9)
    inventory = folder(tmp_path)
    assert inventory.classes == ["Ba  Cellulitis", "Éruption"]
    assert sorted(inventory.rows["path"]) == sorted(names)
    assert reasons(inventory) == {
        "Éruption/notes.txt": "not an image by its name",
        "Éruption/phone.HEIC": "image format that is not read",
        "Ba  Cellulitis/Thumbs.db": "hidden file or folder",
        "Éruption/._x.JPEG": "hidden file or folder",
        "__MACOSX/Éruption/._x.JPEG": "hidden file or folder",
        "stray.png": "outside the class folders",
    }
    check_complete(tmp_path, inventory)


def test_published_split_folders(tmp_path: Path) -> None:
    for number, split in enumerate(["Train", "valid", "validation", "test"]):
        class_tree(tmp_path / split, {"a": 2, "b": 1}, seed=10 * number)
    (tmp_path / "masks").mkdir()
    write(tmp_path / "masks/a.png", 77)
    write(tmp_path / "test/loose.png", 78)
    inventory = folder(tmp_path)
    assert inventory.classes == ["a", "b"]
    assert inventory.rows["split_published"].value_counts().to_dict() == {
        "val": 6,
        "train": 3,
        "test": 3,
    }
    assert set(reasons(inventory).values()) == {"outside the class folders"}
    check_complete(tmp_path, inventory)


@pytest.mark.parametrize("layout", ["{split}/{label}", "{label}/{split}"])
@pytest.mark.parametrize(
    "names", [("train_set", "test_set"), ("Training", "TEST"), ("train", "val")]
)
def test_split_folders_above_or_below_the_classes(
    tmp_path: Path, layout: str, names: tuple[str, str]
) -> None:
    for number in range(8):
        folder = layout.format(split=names[number // 4], label="ab"[number % 2])
        write(tmp_path / folder / f"{number}.png", number + 1)
    inventory = scan(Source(kind="folder", path=tmp_path), None)
    assert inventory.classes == ["a", "b"]
    splits = inventory.rows["split_published"].value_counts().to_dict()
    assert splits == {"train": 4, "val" if "val" in names else "test": 4}


def test_masks_are_no_images(tmp_path: Path) -> None:
    paths = [
        *("a/images/a-1", "a/images/a-2", "a/masks/a-1", "a/masks/a-2"),
        *("b/b (1)", "b/b (1)_mask", "b/b (1)_mask_1", "b/face_mask", "b/unmask"),
    ]
    for number, path in enumerate(paths):
        write(tmp_path / f"{path}.png", number + 1)
    inventory = scan(Source(kind="folder", path=tmp_path), None)
    assert {
        path for path, reason in reasons(inventory).items() if reason == "mask by its name"
    } == {f"{path}.png" for path in (*paths[2:4], *paths[5:7])}
    check_complete(tmp_path, inventory)


def test_a_class_of_masks_is_a_class(tmp_path: Path) -> None:
    class_tree(tmp_path, {"with_mask": 2, "no_mask/masks": 2})
    assert scan(Source(kind="folder", path=tmp_path), None).rows["label"].tolist() == [
        *("no_mask", "no_mask", "with_mask", "with_mask")
    ]


def test_a_folder_keeps_its_name_where_a_link_leads_to_it(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2, "c": 2})
    (tmp_path / "a/0").symlink_to(tmp_path / "b")  # is listed before b
    (tmp_path / "d").symlink_to(class_tree(tmp_path.parent / "elsewhere", {"x": 2}, 9) / "x")
    inventory = folder(tmp_path)
    assert inventory.rows["label"].tolist() == [*"aabbccdd"]
    assert reasons(inventory) == {"a/0": "not a regular file"}


def test_classes_that_differ_by_capitals_alone_are_refused(tmp_path: Path) -> None:
    class_tree(tmp_path, {"train/a": 2, "train/b": 2, "test/A": 2, "test/b": 2})
    with pytest.raises(MedscaleError, match="'A', 'a' differ only by capitals, spaces or zeros"):
        scan(Source(kind="folder", path=tmp_path), None)
    assert len(scan(Source(kind="folder", path=tmp_path), ["a", "b"]).rows) == 6


def test_a_class_called_test_is_a_class(tmp_path: Path) -> None:
    inventory = folder(class_tree(tmp_path, {"test": 2, "control": 2}))
    assert inventory.classes == ["control", "test"]
    assert inventory.rows["split_published"].isna().all()


def test_wrappers_around_the_classes(tmp_path: Path) -> None:
    class_tree(tmp_path / "balanced_dataset/balanced_dataset", {"a": 2, "b": 2})
    assert folder(tmp_path).classes == ["a", "b"]


def test_an_empty_class_folder_is_an_error_until_classes_are_named(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").mkdir()
    with pytest.raises(MedscaleError, match="no images of class 'c'"):
        folder(tmp_path)
    assert folder(tmp_path, ["b", "a"]).classes == ["b", "a"]


def test_classes_choose_and_order(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2, "c": 1})
    inventory = folder(tmp_path, ["c", "a"])
    assert inventory.classes == ["c", "a"]
    assert set(reasons(inventory).values()) == {"class not in the study"}
    check_complete(tmp_path, inventory)
    with pytest.raises(MedscaleError, match="no images of class 'd'"):
        folder(tmp_path, ["a", "d"])


def test_one_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="only one class, 'a'"):
        folder(class_tree(tmp_path, {"a": 3}))


def test_only_other_files_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.nii").write_text("x")
    with pytest.raises(MedscaleError, match=r"no usable images(.|\n)*1 \.nii"):
        folder(tmp_path)


def with_index(root: Path, text: str, encoding: str = "utf-8") -> Path:
    (root / "index.csv").write_text(text, encoding=encoding)
    return root


def test_index_csv_gives_patients_splits_and_metadata(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 3, "b": 2})
    text = (
        "path,label,patient,split,age,width\n./a/0.png,a,007,train,50,1\na\\1.png,,008,valid,,1\n"
    )
    text += "/b/0.png,b,,test,61,1\n"
    inventory = folder(with_index(tmp_path, text + "b/9.png,b,1,,,\n", "utf-8-sig"))
    rows = inventory.rows.set_index("path")
    assert rows["label"].to_dict() == {"a/0.png": "a", "a/1.png": "a", "b/0.png": "b"}
    assert rows["group"].to_dict() == {"a/0.png": "007", "a/1.png": "008", "b/0.png": None}
    assert list(rows["split_published"]) == ["train", "val", "test"]
    assert rows["age"]["b/0.png"] == 61
    assert np.isnan(rows["age"]["a/1.png"])
    assert "width" not in rows
    assert "width" in inventory.notes[0]
    assert reasons(inventory) == {
        "a/2.png": "not listed",
        "b/1.png": "not listed",
        "b/9.png": "listed but missing",
    }
    (tmp_path / "index.csv").unlink()  # the table is no file of the dataset
    check_complete(tmp_path, inventory)


def test_index_csv_labels_flat_folders(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "images" / f"{number}.jpg", number)
    with_index(
        tmp_path, "path,label\n" + "".join(f"images/{n}.jpg,{'xy'[n % 2]}\n" for n in range(4))
    )
    assert folder(tmp_path).rows["label"].tolist() == ["x", "y", "x", "y"]


def test_index_csv_conflicts_are_left_out(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 3, "b": 3})
    text = "path,label\na/0.png,a\na/0.png,a\na/1.png,b\na/2.png,a\na/2.png,b\na/2.png,a\n"
    text += "b/0.png,b\nb/1.png,\n"
    inventory = folder(with_index(tmp_path, text))
    assert sorted(inventory.rows["path"]) == ["a/0.png", "b/0.png", "b/1.png"]
    assert reasons(inventory) == {
        "a/1.png": "conflicting label",
        "a/2.png": "conflicting label",
        "b/2.png": "not listed",
    }
    (tmp_path / "index.csv").unlink()
    check_complete(tmp_path, inventory)


def test_index_csv_meets_accents_in_another_unicode_form(tmp_path: Path) -> None:
    write(tmp_path / unicodedata.normalize("NFD", "é/1.png"), 1)
    write(tmp_path / "b/1.png", 2)
    with_index(tmp_path, f"path,label\n{unicodedata.normalize('NFC', 'é/1.png')},e\nb/1.png,b\n")
    assert len(folder(tmp_path).rows) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,label\na/0.png,a\n", "no column path; it has: file, label"),
        (b"path,label,split\na/0.png,a,holdout\n", "a/0.png: split 'holdout' is not one of"),
        (b"path,label\na/0.png,\xe9\n", "cannot be read as a CSV file in UTF-8"),
        (b'path,label\n"a/0.png,a\n', "cannot be read as a CSV file"),
        (b"path,label\nnone/0.png,a\n", r"none of which is there \(first: none/0.png\).*a/0.png"),
    ],
)
def test_a_broken_index_csv_is_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(MedscaleError, match=message):
        folder(tmp_path)


def test_links_pipes_and_strange_names(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a/broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b/self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "b/pipe.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b/\xff.png")).write_bytes(b"x")
    inventory = folder(tmp_path)
    assert len(inventory.rows) == 4
    assert reasons(inventory) == {
        "a/broken.png": "not a regular file",
        "a/loop": "not a regular file",
        "b/pipe.png": "not a regular file",
        "b/self.png": "not a regular file",
        "b/\\xff.png": "name is not UTF-8",
    }
