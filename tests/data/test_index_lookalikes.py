"""Images that look alike: one group in the index, and what the audit says about them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_trees import (
    NOT_KNOWN,
    checked_index,
    image_bytes,
    reasons_of,
)


def looks_like(path: Path, original: Path) -> Path:
    """Write the mirrored image, encoded again, under another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(original) as image:
        path.write_bytes(image_bytes(ImageOps.mirror(image), "JPEG", quality=60))
    return path


def detailed_tree(root: Path, counts: dict[str, int]) -> Path:
    """``<class>/<number>.png`` with enough in each picture to compare."""
    for label, count in counts.items():
        for number in range(count):
            pixels = np.random.default_rng([ord(label[-1]), number]).integers(
                0, 256, (9, 12, 3), np.uint8
            )
            path = root / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                image_bytes(Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC))
            )
    return root


def test_images_that_look_alike_share_a_group_and_are_reported(tmp_path: Path) -> None:
    root = detailed_tree(tmp_path, {"a": 12, "b": 12})
    looks_like(root / "a/z.jpg", root / "a/3.png")
    looks_like(root / "a/zz.jpg", root / "a/z.jpg")
    index, left_out, summary = checked_index(root)
    rows = index.set_index("path")
    assert rows.loc[["a/3.png", "a/z.jpg", "a/zz.jpg"], "group"].nunique() == 1
    assert set(rows.loc[["a/3.png", "a/z.jpg", "a/zz.jpg"], "alike"]) == {"a/3.png"}
    assert rows["alike"].notna().sum() == 3
    assert reasons_of(left_out, "kept") == {
        "a/z.jpg": "near-duplicate",
        "a/zz.jpg": "near-duplicate",
    }
    assert set(left_out["detail"]) == {"looks like a/3.png"}
    assert summary["near_duplicates"] == {
        "clusters": 1, "images": 3, "largest": 3, "of_several_labels": 0, "of_several_patients": 0,
    }  # fmt: skip
    assert summary["notes"] == [
        NOT_KNOWN,
        "3 images look like another (clusters: 1, the largest of 3).",
    ]
    assert summary["groups"] == 24
    index, left_out, summary = checked_index(root, near_duplicates=False)
    assert index["group"].nunique() == 26
    assert index["alike"].isna().all()
    assert left_out.empty
    assert summary["near_duplicates"] is None


def test_look_alikes_with_other_labels_are_kept_and_reported(tmp_path: Path) -> None:
    root = detailed_tree(tmp_path, {"a": 12, "b": 12})
    looks_like(root / "b/z.jpg", root / "a/3.png")
    index, left_out, summary = checked_index(root)
    assert reasons_of(left_out, "kept") == {"b/z.jpg": "near-duplicate with another label"}
    assert left_out["detail"].tolist() == ["looks like a/3.png, which is a"]
    assert index.set_index("path").loc[["a/3.png", "b/z.jpg"], "group"].nunique() == 1
    assert summary["near_duplicates"]["of_several_labels"] == 1
    assert any("the largest of 2; of several labels: 1)" in note for note in summary["notes"])
    assert summary["used"] == 25


def test_look_alikes_join_patients(tmp_path: Path) -> None:
    root = detailed_tree(tmp_path, {"a": 12, "b": 12})
    looks_like(root / "a/12.jpg", root / "a/3.png")
    lines = [f"{c}/{n}.png,{c},{c}{n // 2}" for c in "ab" for n in range(12)]
    (root / "index.csv").write_text("\n".join(["path,label,patient", *lines, "a/12.jpg,a,a5"]))
    index, _, summary = checked_index(root)
    together = index[index["group"] == "a1"]
    assert sorted(together["path"]) == ["a/10.png", "a/11.png", "a/12.jpg", "a/2.png", "a/3.png"]
    assert together["split"].nunique() == 1
    assert summary["near_duplicates"]["of_several_patients"] == 1


def published_tree(root: Path, copy: str, split: str) -> Path:
    """Images with published splits, and a copy of an image of training, a/3.png."""
    root = detailed_tree(root, {"a": 14, "b": 14})
    looks_like(root / copy, root / "a/3.png")
    parts = ["train"] * 8 + ["val"] * 3 + ["test"] * 3
    lines = [f"{c}/{n}.png,{c},{part}" for c in "ab" for n, part in enumerate(parts)]
    (root / "index.csv").write_text("\n".join(["path,label,split", *lines, f"{copy},a,{split}"]))
    return root


def test_look_alikes_in_two_published_splits_are_leaks(tmp_path: Path) -> None:
    root = published_tree(tmp_path, "a/z.jpg", "test")
    for mode, reason in (
        ("grouped", "leak between published splits"),
        ("published", "leak between splits"),
    ):
        index, left_out, summary = checked_index(root, mode=mode)
        message = left_out[left_out["reason"] == reason]
        assert message["path"].tolist() == ["a/3.png", "a/z.jpg"]
        assert message["detail"].str.endswith("stands in test, train").all()
        assert "2 images look like one in another published split." in summary["notes"]
        assert not any("of patients" in note for note in summary["notes"])
        leak_splits = index.set_index("path").loc[["a/3.png", "a/z.jpg"], "split"]
        assert leak_splits.nunique() == (1 if mode == "grouped" else 2)
    message = (
        "1 of the 7 test images are in the training split too, or look like one in it, or are of a "
        "patient who is: "
    )
    assert any(note.startswith(message) for note in summary["notes"])
    _, left_out, summary = checked_index(root, mode="published", near_duplicates=False)
    assert not reasons_of(left_out, "kept")
    assert not any("training split" in note for note in summary["notes"])


def test_look_alikes_without_a_published_split_leave_no_cluster_behind(tmp_path: Path) -> None:
    root = published_tree(tmp_path, "a/0.jpg", "")
    index, left_out, summary = checked_index(root, mode="published")
    assert reasons_of(left_out)["a/0.jpg"] == "no published split"
    assert not reasons_of(left_out, "kept")
    assert index["alike"].isna().all()
    assert summary["near_duplicates"]["clusters"] == 0


def test_a_conflicting_image_that_looks_like_one_in_another_split_is_a_leak(tmp_path: Path) -> None:
    root = detailed_tree(tmp_path, {"a": 12, "b": 12})
    shutil.copy(root / "a/0.png", root / "b/same.png")  # two labels: both are left out
    looks_like(root / "a/z.jpg", root / "a/0.png")
    lines = [f"{c}/{n}.png,{c},train" for c in "ab" for n in range(12)]
    lines += ["b/same.png,b,train", "a/z.jpg,a,test"]
    (root / "index.csv").write_text("\n".join(["path,label,split", *lines]))
    _, left_out, summary = checked_index(root)
    details = left_out[left_out["reason"] == "conflicting label"]["detail"]
    assert details.str.contains("looks like a/z.jpg: leak between published splits").all()
    note = "2 of the 2 images with conflicting labels, which are left out, are or look like"
    assert any(note in text for text in summary["notes"])


def test_images_that_cannot_be_compared_are_reported(tmp_path: Path) -> None:
    root = detailed_tree(tmp_path, {"a": 12, "b": 12})
    columns = np.random.default_rng(0).integers(0, 256, (1, 120, 3), np.uint8)
    stripes = Image.fromarray(np.repeat(columns, 90, axis=0))
    for kind in ("PNG", "BMP"):  # one image under two digests
        (root / f"a/z.{kind.lower()}").write_bytes(image_bytes(stripes, kind))
    index, left_out, summary = checked_index(root)
    assert index["group"].nunique() == 26
    assert reasons_of(left_out, "kept") == {
        "a/z.bmp": "not compared with others",
        "a/z.png": "not compared with others",
    }
    assert summary["notes"] == [
        NOT_KNOWN,
        "Images that are blank or have stripes alone: 2, such as a/z.bmp. They may be damaged, and "
        "of their copies only exact ones are found.",
    ]
    _, left_out, _ = checked_index(root, near_duplicates=False)
    assert left_out.empty
