"""Listing of folders of images: classes, published splits, masks, links and strange names."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from data_trees import (
    check_complete,
    class_tree,
    listed,
    reasons,
    write,
)
from medscale.base.errors import MedscaleError
from medscale.data.kind import scan
from medscale.data.settings import Source


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
    inventory = listed(tmp_path)
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
    inventory = listed(tmp_path)
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
    inventory = listed(tmp_path)
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
    inventory = listed(tmp_path)
    assert {
        path for path, reason in reasons(inventory).items() if reason == "mask by its name"
    } == {f"{path}.png" for path in (*paths[2:4], *paths[5:7])}
    check_complete(tmp_path, inventory)


def test_a_class_of_masks_is_a_class(tmp_path: Path) -> None:
    class_tree(tmp_path, {"with_mask": 2, "no_mask/masks": 2})
    assert listed(tmp_path).rows["label"].tolist() == [
        *("no_mask", "no_mask", "with_mask", "with_mask")
    ]


def test_a_folder_keeps_its_name_where_a_link_leads_to_it(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2, "c": 2})
    (tmp_path / "a/0").symlink_to(tmp_path / "b")  # is listed before b
    (tmp_path / "d").symlink_to(class_tree(tmp_path.parent / "elsewhere", {"x": 2}, 9) / "x")
    inventory = listed(tmp_path)
    assert inventory.rows["label"].tolist() == [*"aabbccdd"]
    assert reasons(inventory) == {"a/0": "not a regular file"}


def test_classes_that_differ_by_capitals_alone_are_refused(tmp_path: Path) -> None:
    class_tree(tmp_path, {"train/a": 2, "train/b": 2, "test/A": 2, "test/b": 2})
    with pytest.raises(MedscaleError, match="'A', 'a' differ only by capitals, spaces or zeros"):
        listed(tmp_path)
    assert len(listed(tmp_path, ["a", "b"]).rows) == 6


def test_a_class_called_test_is_a_class(tmp_path: Path) -> None:
    inventory = listed(class_tree(tmp_path, {"test": 2, "control": 2}))
    assert inventory.classes == ["control", "test"]
    assert inventory.rows["split_published"].isna().all()


def test_wrappers_around_the_classes(tmp_path: Path) -> None:
    class_tree(tmp_path / "balanced_dataset/balanced_dataset", {"a": 2, "b": 2})
    assert listed(tmp_path).classes == ["a", "b"]


def test_an_empty_class_folder_is_an_error_until_classes_are_named(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").mkdir()
    with pytest.raises(MedscaleError, match="no images of class 'c'"):
        listed(tmp_path)
    assert listed(tmp_path, ["b", "a"]).classes == ["b", "a"]


def test_classes_choose_and_order(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2, "c": 1})
    inventory = listed(tmp_path, ["c", "a"])
    assert inventory.classes == ["c", "a"]
    assert set(reasons(inventory).values()) == {"class not in the study"}
    check_complete(tmp_path, inventory)
    with pytest.raises(MedscaleError, match="no images of class 'd'"):
        listed(tmp_path, ["a", "d"])


def test_one_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="only one class, 'a'"):
        listed(class_tree(tmp_path, {"a": 3}))


def test_only_other_files_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.nii").write_text("x")
    with pytest.raises(MedscaleError, match=r"no usable images(.|\n)*1 \.nii"):
        listed(tmp_path)


def test_links_pipes_and_strange_names(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a/broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b/self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "b/pipe.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b/\xff.png")).write_bytes(b"x")
    inventory = listed(tmp_path)
    assert len(inventory.rows) == 4
    assert reasons(inventory) == {
        "a/broken.png": "not a regular file",
        "a/loop": "not a regular file",
        "b/pipe.png": "not a regular file",
        "b/self.png": "not a regular file",
        "b/\\xff.png": "name is not UTF-8",
    }


def test_classes_match_in_any_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Ödem") for form in ("NFC", "NFD"))
    for number, folder in enumerate((composed, decomposed, "b")):
        write(tmp_path / folder / f"{number}.png", number + 1)
    for name in (composed, decomposed):
        inventory = listed(tmp_path, classes=[name, "b"])
        assert inventory.classes == [composed, "b"]
        assert inventory.rows["label"].tolist().count(composed) == 2


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    class_tree(tmp_path / "images", {"a": 2, "b": 2})
    assert Source(kind="folder", path=Path("~/images")).path == tmp_path / "images"
    assert len(listed(Path("~/images")).rows) == 4
