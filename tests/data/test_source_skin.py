"""Listing of the skin dataset: folders as classes, copies grouped with their originals."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_trees import check_complete, class_tree, index_and_summary, reasons, write
from medscale.base.errors import MedscaleError
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.kinds.skin import class_name, is_copy, original
from medscale.data.settings import Source, Split

COMMAND = "kaggle datasets download -d muhammadabdulsami/massive-skin-disease-balanced-dataset"


def skin(root: Path, classes: list[str] | None = None) -> Inventory:
    return scan(Source(kind="skin", path=root), classes)


def real_tree(root: Path) -> Path:
    names = {
        "Ba  Cellulitis": [
            "a (1).jpg",
            "aug_12_a (1).jpg",
            "aug_7_aug_12_a (1).jpeg",
            "b.JPG",
            "aug_0_gone.png",
        ],
        "heathy Skin": ["a (1).jpg", "aug_5_a (1).jpg", "august_1.jpg", "aug_9_.jpg"],
    }
    for seed, (folder, name) in enumerate(
        (folder, name) for folder, files in names.items() for name in files
    ):
        write(root / folder / name, seed)
    return root


@pytest.mark.parametrize("wrapper", [".", "balanced_dataset", "balanced_dataset/balanced_dataset"])
def test_the_download_as_it_comes(tmp_path: Path, wrapper: str) -> None:
    real_tree(tmp_path / wrapper)
    (tmp_path / "counts.csv").write_text("class,images\n")
    (tmp_path / wrapper / "labels.csv").write_text("x\n")
    inventory = skin(tmp_path)
    assert inventory.classes == ["Ba Cellulitis", "heathy Skin"]
    rows = inventory.rows.assign(
        path=[str(Path(path).relative_to(wrapper)) for path in inventory.rows["path"]]
    )
    groups = dict(zip(rows["path"], rows["group"], strict=True))
    assert groups == {
        "Ba  Cellulitis/a (1).jpg": "Ba Cellulitis/a (1)",
        "Ba  Cellulitis/aug_12_a (1).jpg": "Ba Cellulitis/a (1)",
        "Ba  Cellulitis/aug_7_aug_12_a (1).jpeg": "Ba Cellulitis/a (1)",
        "Ba  Cellulitis/b.JPG": "Ba Cellulitis/b",
        "Ba  Cellulitis/aug_0_gone.png": "Ba Cellulitis/gone",
        "heathy Skin/a (1).jpg": "heathy Skin/a (1)",
        "heathy Skin/aug_5_a (1).jpg": "heathy Skin/a (1)",
        "heathy Skin/august_1.jpg": "heathy Skin/august_1",
        "heathy Skin/aug_9_.jpg": "heathy Skin/aug_9_",
    }
    assert {reason for path, reason in reasons(inventory).items() if path.endswith(".csv")} == {
        "not an image by its name"
    }
    message = (
        "4 of the 9 image files in folders of classes are named as augmented copies "
        "(aug_<number>_…) of 3 originals"
    )
    assert inventory.notes[0].startswith(message)
    assert "(of which 1 are missing)" in inventory.notes[0]
    assert inventory.notes[1].startswith("9 images in 2 classes are present")
    assert all(number in inventory.notes[1] for number in ("245,000", "262,874", "35", "34"))
    assert "watermarks" in inventory.notes[2]
    assert "MIT" in inventory.notes[2]


def test_every_file_is_used_or_listed(tmp_path: Path) -> None:
    root = real_tree(tmp_path)
    write(root / "stray.jpg", 50)
    (root / "Ba  Cellulitis/Thumbs.db").write_bytes(b"x")
    check_complete(root, skin(root))


def test_a_random_split_leaks_where_a_grouped_one_does_not(tmp_path: Path) -> None:
    names = product("ab", range(12), ("", "aug_1_", "aug_2_"))
    for seed, (label, number, copy) in enumerate(names):
        write(tmp_path / label / f"{copy}{number}.png", seed)
    splits = {
        mode: index_and_summary(tmp_path, skin(tmp_path), Split(mode=mode))[0]
        for mode in ("random", "grouped")
    }
    splits_per_group = {
        mode: index.groupby("group")["split"].nunique().max() for mode, index in splits.items()
    }
    assert splits_per_group["grouped"] == 1
    assert splits_per_group["random"] > 1


def test_without_copies_no_note_of_them(tmp_path: Path) -> None:
    inventory = skin(class_tree(tmp_path, {"a": 2, "b": 2}))
    assert len(inventory.notes) == 2
    assert not any("copies" in note for note in inventory.notes)


def test_classes_choose_and_order(tmp_path: Path) -> None:
    class_tree(tmp_path, {"Ba  Cellulitis": 2, "b": 2, "c": 1})
    inventory = skin(tmp_path, ["b", "Ba  Cellulitis"])
    assert inventory.classes == ["b", "Ba Cellulitis"]
    assert set(reasons(inventory).values()) == {"class not in the study"}


def test_missing_empty_and_incomplete_downloads_say_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="does not exist") as caught:
        skin(tmp_path / "gone")
    assert COMMAND in str(caught.value)
    with pytest.raises(MedscaleError, match="an empty folder") as caught:
        skin(tmp_path)
    assert COMMAND in str(caught.value)
    class_tree(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "Vi  Shingles").mkdir()
    with pytest.raises(MedscaleError, match="no images of class 'Vi Shingles'") as caught:
        skin(tmp_path)
    assert COMMAND in str(caught.value)


def test_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MedscaleError, match=r"dataset kind skin has no options; found in source.options: seed"
    ):
        scan(
            Source(kind="skin", path=class_tree(tmp_path, {"a": 2, "b": 2}), options={"seed": 1}),
            None,
        )


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0.", exclude_categories=["C"]), min_size=1
)


@given(
    NAMES.filter(lambda name: not is_copy(f"{name}.jpg")),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=4),
)
def test_a_copy_of_a_copy_leads_to_the_original(name: str, numbers: list[int]) -> None:
    copied = "".join(f"aug_{number}_" for number in numbers) + name
    assert original(f"some class/{copied}.jpg") == original(f"some class/{name}.png") == name
    assert is_copy(f"{copied}.jpg")


@given(st.text(min_size=1))
def test_class_names_have_no_runs_of_spaces(name: str) -> None:
    assert class_name(class_name(name)) == class_name(name)
    assert "  " not in class_name(name)
