"""Audit and index: each file is used or left out with a reason, and leaks are found."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dask_scheduler import running_scheduler
from data_trees import (
    NOT_KNOWN,
    checked_index,
    class_tree,
    fundus_pytorch,
    image_bytes,
    picture,
    reasons_of,
    write,
)
from medscale.base.errors import MedscaleError
from medscale.data import audit, inspection
from medscale.data.index import build_index
from medscale.data.inspection import FACTS, inspect
from medscale.data.settings import Dask, Source, Split


def nasty_tree(root: Path) -> Path:
    """Ten good images a class, and one of each kind of file that a real folder should not have."""
    class_tree(root, {"a": 10, "b": 10})
    good = image_bytes(picture(500))
    for name, data in {
        "a/zero.png": b"",
        "a/text.png": b"only text\n",
        "a/cut.png": good[: len(good) // 2],
        "b/cut.jpg": image_bytes(picture(501), "JPEG")[:400],
        "a/grey.PNG": image_bytes(picture(502).convert("L")),
        "a/CMYK image.JPG": image_bytes(picture(503).convert("CMYK"), "JPEG"),
        "b/é (2).jpeg": image_bytes(picture(504), "JPEG"),
        "b/Thumbs.db": b"x",
        "a/same.png": (root / "a/3.png").read_bytes(),
        "a/both.png": good,
        "a/both again.png": good,
        "b/both too.png": good,
    }.items():
        (root / name).write_bytes(data)
    return root


NASTY = {
    "a/zero.png": "zero bytes",
    "a/text.png": "not an image",
    "a/cut.png": "truncated",
    "b/cut.jpg": "truncated",
    "b/Thumbs.db": "hidden file or folder",
    "a/same.png": "duplicate",
    "a/both.png": "conflicting label",
    "a/both again.png": "conflicting label",
    "b/both too.png": "conflicting label",
}


def test_every_bad_file_has_its_reason(tmp_path: Path) -> None:
    index, left_out, summary = checked_index(nasty_tree(tmp_path))
    assert reasons_of(left_out) == NASTY
    assert {"a/grey.PNG", "a/CMYK image.JPG", "b/é (2).jpeg", "a/3.png"} <= set(index["path"])
    details = left_out.set_index("path")["detail"]
    assert details["a/same.png"] == "same bytes as a/3.png"
    assert details["a/both.png"] == "same bytes as b/both too.png, which is b"
    assert summary["used"] == 23


def test_the_index_has_the_contracts_columns(tmp_path: Path) -> None:
    index, _, _ = checked_index(class_tree(tmp_path, {"b": 10, "a": 10}))
    first = [
        "id",
        "path",
        "label",
        "split",
        "split_published",
        "group",
        "patient",
        "width",
        "height",
        "sha256",
        "source",
        "alike",
    ]
    assert list(index.columns) == first
    assert index["id"].tolist() == list(range(20))
    assert index["path"].is_monotonic_increasing
    assert list(index["label"].cat.categories) == ["a", "b"]
    assert index["label"].cat.ordered
    assert set(zip(index["width"], index["height"], strict=True)) == {(40, 30)}
    assert index["group"].nunique() == 20


def test_val_and_test_that_are_train_again(tmp_path: Path) -> None:
    root = fundus_pytorch(tmp_path, per_class=6)
    shutil.rmtree(root / "train")
    for path in sorted(root.glob("*/*/*.png")):
        copy = root / "train" / path.parent.name / f"BEH-{1000 + int(path.stem.split('-')[1])}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    index, left_out, summary = checked_index(root, "smdg", near_duplicates=False)
    assert summary["unique"] == summary["used"] == 24
    assert summary["by_reason"] == {"duplicate": 24}
    assert left_out["detail"].str.contains("leak between published splits").all()
    message = "24 images stand in two published splits: the published split would have leaked them."
    assert summary["notes"] == [
        "48 images are present of the 17242 of the complete fundus-pytorch.",
        NOT_KNOWN,
        message,
    ]
    assert summary["counts_published"]["normal"] == {"train": 12, "val": 6, "test": 6}
    assert index["sha256"].is_unique

    index, left_out, summary = checked_index(root, "smdg", mode="published", near_duplicates=False)
    assert summary["used"] == 48
    assert summary["unique"] == 24
    assert summary["kept_by_reason"] == {"leak between splits": 48}
    assert set(left_out["action"]) == {"kept"}
    assert any(
        "12 of the 12 test images are in the training split too" in note
        for note in summary["notes"]
    )


def patients(root: Path, rows: list[str]) -> Path:
    """Ten images a class of a patient each, and further rows of index.csv."""
    class_tree(root, {"a": 12, "b": 12})
    lines = [f"{c}/{n}.png,{c},{c}{n}," for c in "ab" for n in range(10)]
    (root / "index.csv").write_text("\n".join(["path,label,patient,split", *lines, *rows]) + "\n")
    return root


def test_a_patient_in_two_published_splits_is_reported_and_not_divided(tmp_path: Path) -> None:
    index, left_out, summary = checked_index(
        patients(tmp_path, ["a/10.png,a,p,train", "b/10.png,b,p,test"]), near_duplicates=False
    )
    assert index.loc[index["group"] == "p", "split"].nunique() == 1
    kept_rows = left_out[left_out["action"] == "kept"]
    assert kept_rows["path"].tolist() == ["a/10.png", "b/10.png"]
    assert set(kept_rows["detail"]) == {"p stands in test, train"}
    assert summary["notes"] == ["2 images are of patients in two published splits."]


def test_one_image_under_two_patients_joins_them(tmp_path: Path) -> None:
    root = patients(tmp_path, ["a/10.png,a,p,", "a/11.png,a,q,", "b/10.png,b,p,", "b/11.png,b,q,"])
    shutil.copy(root / "a/10.png", root / "a/11.png")
    index, left_out, _ = checked_index(root)
    assert reasons_of(left_out)["a/11.png"] == "duplicate"
    assert set(index.set_index("path").loc[["a/10.png", "b/10.png", "b/11.png"], "group"]) == {"p"}
    assert index.loc[index["group"] == "p", "split"].nunique() == 1


def test_patients_are_joined_however_many_images_they_share() -> None:
    shared = [f"{n:064x}" for n in range(256)]
    rows = pd.DataFrame(
        {"sha256": [*shared, *shared, "f" * 64], "group": ["p"] * 256 + ["q"] * 256 + [None]}
    )
    rows["alike"] = pd.factorize(rows["sha256"])[0]
    assert audit.fill_groups(rows)["group"].tolist() == ["p"] * 512 + ["image:" + "f" * 16]
    copy = pd.DataFrame(
        {"sha256": ["a" * 64, "a" * 64, "b" * 64], "group": [None, "z", "z"], "alike": [0, 0, 1]}
    )
    assert audit.fill_groups(copy)["group"].tolist() == ["z"] * 3


def test_a_random_split_tells_its_leaks(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 20, "b": 20})
    lines = [f"{c}/{n}.png,{c},{c}{n // 5}" for c in "ab" for n in range(20)]
    (tmp_path / "index.csv").write_text("\n".join(["path,label,patient", *lines]))
    _, left_out, summary = checked_index(tmp_path, mode="random", near_duplicates=False)
    assert set(reasons_of(left_out, "kept").values()) == {"leak between splits"}
    assert any(
        "with the random split their accuracy says little" in note for note in summary["notes"]
    )
    _, left_out, summary = checked_index(tmp_path, mode="grouped")
    assert not reasons_of(left_out, "kept")
    assert summary["groups"] == 8


def test_published_leaves_out_what_has_no_split(tmp_path: Path) -> None:
    rows = ["a/0.png,a,train", "b/0.png,b,train", "a/1.png,a,val", "b/1.png,b,test", "a/2.png,a,"]
    class_tree(tmp_path, {"a": 3, "b": 2})
    (tmp_path / "index.csv").write_text("\n".join(["path,label,split", *rows]))
    index, left_out, summary = checked_index(tmp_path, mode="published")
    assert reasons_of(left_out)["a/2.png"] == "no published split"
    assert index.set_index("path")["split"].to_dict() == {
        "a/0.png": "train", "a/1.png": "val", "b/0.png": "train", "b/1.png": "test",
    }  # fmt: skip
    estimate = "so that nothing can be estimated for it there."
    assert f"Class a has no images in test, {estimate}" in summary["notes"]


def test_a_class_without_usable_images_is_one_message(tmp_path: Path) -> None:
    class_tree(tmp_path, {"a": 5})
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.png").write_bytes(b"")
    with pytest.raises(
        MedscaleError, match=r"class 'b' has no usable images left \(left out: zero bytes 1\)"
    ):
        checked_index(tmp_path)


def test_images_without_contrast_are_kept_and_reported(tmp_path: Path) -> None:
    root = class_tree(tmp_path, {"a": 6, "b": 6})
    pixels = np.asarray(picture(1).convert("L"), np.uint16)
    for name, factor in (("deep", 257), ("twelve", 16)):  # of 16 bits, and 12 bits in 16
        Image.fromarray(pixels * factor).save(root / "a" / f"{name}.png")
    Image.new("RGB", (40, 30), "white").save(root / "b" / "blank.png")
    index, left_out, summary = checked_index(root)
    has_little_contrast = left_out["reason"] == "hardly any contrast"
    contrast_notes = left_out[has_little_contrast].set_index("path")["detail"]
    assert contrast_notes["b/blank.png"] == "its pixels span 0 of 255 levels"
    assert sorted(contrast_notes.index) == ["a/twelve.png", "b/blank.png"]
    notes = summary["notes"]
    assert any("2 images have hardly any contrast, such as a/twelve.png" in note for note in notes)
    assert {"a/twelve.png", "b/blank.png"} <= {*index["path"]}


def test_images_left_out_for_balance_are_reported_and_counted(tmp_path: Path) -> None:
    root = nasty_tree(class_tree(tmp_path, {"a": 10, "b": 10}))
    for number in range(12):
        write(root / "b" / f"more {number}.png", 700 + number)
    whole, _, _ = checked_index(root)
    index, left_out, summary = checked_index(root, balance=True)
    sizes = whole["label"].value_counts()
    assert index["label"].value_counts().to_dict() == dict.fromkeys("ab", sizes.min())
    away = left_out[left_out["reason"] == "balanced away"]
    assert set(away["action"]) == {"excluded"}
    assert len(away) == sizes.max() - sizes.min() == summary["by_reason"]["balanced away"]
    assert set(away["path"]) | set(index["path"]) == set(whole["path"])
    assert set(away["detail"]) == {f"{sizes['b']} images of b, {sizes['a']} of a"}
    assert index["id"].tolist() == list(range(len(index)))


KINDS = ("good", "good", "good", "copy", "conflict", "zero", "text", "thumbs", "upper")


@settings(max_examples=30, deadline=None)
@given(
    files=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("ab")), max_size=12),
    balance=st.booleans(),
)
def test_found_is_used_plus_excluded(files: list[tuple[str, str]], balance: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = class_tree(Path(place), {"a": 5, "b": 5})
        for number, (kind, label) in enumerate(files):
            ending = {"upper": "PNG", "thumbs": "db"}.get(kind, "png")
            path = root / label / f"extra {number}.{ending}"
            opposite = "b" if label == "a" else "a"
            source = {"copy": root / label / "0.png", "conflict": root / opposite / "1.png"}.get(
                kind
            )
            data = {"zero": b"", "text": b"text", "thumbs": b"x"}.get(kind)
            path.write_bytes(
                source.read_bytes()
                if source
                else image_bytes(picture(900 + number))
                if data is None
                else data
            )
        index, left_out, _ = checked_index(root, balance=balance)
        assert (left_out["reason"].str.len() > 0).all()
        assert not balance or index["label"].value_counts().nunique() == 1


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Dask scheduler that runs already, with one worker process."""
    with running_scheduler(1, tmp_path_factory.mktemp("certificates")) as address:
        yield address


def test_build_index_on_a_running_scheduler(tmp_path: Path, scheduler: str) -> None:
    root, out = nasty_tree(tmp_path / "raw"), tmp_path / "data"
    source, division = Source(kind="folder", path=root), Split()
    result = build_index(source, division, None, Dask(scheduler=scheduler), out)
    index = pd.read_parquet(out / "index.parquet")
    alone, _, summary = checked_index(root)
    pd.testing.assert_frame_equal(index, alone)
    pd.testing.assert_frame_equal(index, result)
    table = pd.read_csv(out / "audit.csv")
    assert list(table.columns) == ["path", "action", "reason", "detail"]
    assert reasons_of(table) == NASTY
    assert json.loads((out / "audit.json").read_text()) == json.loads(json.dumps(summary))


def test_a_missing_split_is_reported_before_anything_is_read(tmp_path: Path) -> None:
    write(tmp_path / "train/a/1.png", 1)
    write(tmp_path / "test/b/2.png", 2)
    with pytest.raises(MedscaleError, match="the val split is empty: 2 images; patients"):
        build_index(
            Source(kind="folder", path=tmp_path),
            Split(mode="published"),
            None,
            Dask(),
            tmp_path / "out",
        )


def test_no_signatures_are_computed_where_near_duplicates_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_bytes(image_bytes(picture(0)))
    signature = FACTS.index("_signature")
    assert inspect(str(tmp_path), "x.png")[0][signature] is not None
    monkeypatch.setattr(inspection, "signature", None)  # would not be callable
    facts = inspect(str(tmp_path), "x.png", near_duplicates=False)
    assert facts[0][signature] is None
