"""Files of several frames: the audit names the frame that is used, `all` makes an image of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_trees import audited, class_tree, image_bytes, listed, picture
from dicom_images import dicom_frames
from known_pixels import smooth, tiff
from medscale.base.files import sha256
from medscale.config.sections import Preprocess, Split
from medscale.data.build import make_chunk
from medscale.data.frames import file_and_frame, frame_numbers, read_frame
from medscale.data.images import decode
from medscale.data.preprocess import preprocess

FRAMES = np.stack([smooth(seed, 64, 64, 1, 12)[..., 0] for seed in (1, 2, 3)])
WINDOW = {"BitsStored": 12, "WindowCenter": "2048", "WindowWidth": "4096"}
SCAN = dicom_frames(FRAMES, **WINDOW)


def tree(root: Path) -> Path:
    """Two classes of ten images, with a scan of three frames and a TIFF of two pages."""
    class_tree(root, {"a": 10, "b": 10})
    (root / "a" / "scan.dcm").write_bytes(SCAN)
    pages = tiff(smooth(9, 40, 60, 3, 8), pages=2, photometric="rgb")
    (root / "b" / "pages.tif").write_bytes(pages)
    return root


def frame_index(root: Path, frames: str) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    inventory = listed(root)
    return audited(root, inventory, Split(), frames)


def notes(left_out: pd.DataFrame) -> dict[str, str]:
    several = left_out[left_out["reason"] == "several frames"]
    assert set(several["action"]) == {"kept"}
    return dict(zip(several["path"], several["detail"], strict=True))


def test_the_first_frame_is_used_and_the_audit_says_so(tmp_path: Path) -> None:
    index, left_out, summary = frame_index(tree(tmp_path), "first")
    assert notes(left_out) == {
        "a/scan.dcm": "first of 3 frames is used",
        "b/pages.tif": "first of 2 frames is used",
    }
    assert summary["kept_by_reason"]["several frames"] == 2
    assert summary["found"] == summary["used"] == 22
    sentence = "2 files have several frames or pages: one of each is used (source.frames)."
    assert sentence in summary["notes"]
    row = index.set_index("path").loc["a/scan.dcm"]
    assert row["sha256"] == sha256(tmp_path / "a" / "scan.dcm")


def test_the_middle_frame_has_its_number_in_its_path(tmp_path: Path) -> None:
    index, left_out, _ = frame_index(tree(tmp_path), "middle")
    assert notes(left_out) == {
        "a/scan.dcm": "number 2 of 3 frames is used",
        "b/pages.tif": "number 2 of 2 frames is used",
    }
    assert {"a/scan.dcm[2]", "b/pages.tif[2]"} <= set(index["path"])


def test_all_frames_are_images_of_one_patient(tmp_path: Path) -> None:
    index, left_out, summary = frame_index(tree(tmp_path), "all")
    assert notes(left_out)["a/scan.dcm"] == "all 3 frames are used"
    scans = index[index["path"].str.startswith("a/scan.dcm")]
    assert scans["path"].tolist() == [f"a/scan.dcm[{number}]" for number in (1, 2, 3)]
    assert scans["sha256"].nunique() == 3
    assert scans["group"].nunique() == scans["split"].nunique() == 1
    assert summary["found"] == summary["used"] + summary["excluded"] == 25


def test_a_known_patient_stays_the_group_of_all_frames(tmp_path: Path) -> None:
    tree(tmp_path)
    listing = "".join(f"{label}/{n}.png,p{label}{n}\n" for label in "ab" for n in range(10))
    table = f"path,patient\n{listing}a/scan.dcm,ann\nb/pages.tif,bob\n"
    (tmp_path / "index.csv").write_text(table)
    index, _, _ = frame_index(tmp_path, "all")
    assert set(index.loc[index["path"].str.startswith("a/scan"), "group"]) == {"ann"}


@pytest.mark.parametrize("frames", ["first", "middle", "all"])
def test_shards_hold_the_frames(tmp_path: Path, frames: str) -> None:
    index, _, _ = frame_index(tree(tmp_path / "raw"), frames)
    rows = index[index["path"].str.startswith("a/scan")]
    images = list(rows[["path", "sha256", "width", "height"]].itertuples(index=False, name=None))
    settings = Preprocess(size=32)
    assert make_chunk(str(tmp_path), 0, "key", str(tmp_path / "raw"), images, settings) == 0
    expected = [
        preprocess(decode(SCAN, frame=frame), settings) for frame in frame_numbers(frames, 3)
    ]
    assert np.array_equal(np.load(tmp_path / "images-00000.npy"), expected)


def test_a_file_whose_name_looks_like_a_frame_is_meant_itself(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(image_bytes(picture(1)))
    (tmp_path / "x.png[2]").write_bytes(b"other")
    assert read_frame(tmp_path / "x.png[2]") == (b"other", 0)
    assert read_frame(tmp_path / "x.png[3]") == (image_bytes(picture(1)), 2)
    assert file_and_frame("a/x.png[3]") == (Path("a/x.png"), 2)
    assert file_and_frame("a/x[y].png") == (Path("a/x[y].png"), 0)
    assert [frame_numbers("middle", count) for count in (1, 2, 3, 4)] == [[0], [1], [1], [2]]


def test_dicom_files_without_an_ending_are_images(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        name = f"IM{number:05d}" if number < 4 else f"1.2.840.{number}"
        pixels = smooth(number, 30, 40, 1, 8)[None, ..., 0]
        (folder / name).write_bytes(dicom_frames(pixels))
    (tmp_path / "a" / "README").write_text("not an image")
    Image.fromarray(smooth(1, 9, 9, 3, 8)).save(tmp_path / "a" / "other.png")
    inventory = listed(tmp_path)
    names = {Path(path).name for path in inventory.rows["path"]}
    assert names == {*(f"IM{n:05d}" for n in range(4)), "1.2.840.4", "1.2.840.5", "other.png"}
    assert inventory.excluded["path"].tolist() == ["a/README"]
