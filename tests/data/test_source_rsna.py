"""Listing of the RSNA challenge: labels, detailed classes, boxes, patients, and faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from data_trees import audited, image_bytes, picture
from medscale.base.errors import MedscaleError
from medscale.base.files import write_parquet
from medscale.data.index import _schema
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.kinds.rsna import DETAILS, LABELS, MAPPING, TEST, TRAIN
from medscale.data.settings import Source, Split

NORMAL, NOT_NORMAL, OPACITY = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"
BOXES = {
    "o1": ["264.0,152.0,213.0,379.0", "562.0,152.0,256.0,453.0"],
    "o2": ["323.0,577.0,160.0,104.0"],
}
EXAMS = {
    "n1": NORMAL,
    "n2": NORMAL,
    "x1": NOT_NORMAL,
    "x2": NOT_NORMAL,
    "o1": OPACITY,
    "o2": OPACITY,
}
IMAGES = {
    "00000013_004.png": "n1",
    "00000013_005.png": "o1",
    "00000021_000.png": "x1",
    "00000022_000.png": "o2",
}


def challenge(root: Path, exams: dict[str, str] = EXAMS, mapping: bool = True) -> Path:
    """Write the download's layout; the listing reads names and tables, so PNG bytes suffice."""
    for folder in (TRAIN, TEST):
        (root / folder).mkdir(parents=True)
    labels, details = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for number, (exam, detail) in enumerate(exams.items()):
        (root / TRAIN / f"{exam}.dcm").write_bytes(image_bytes(picture(number)))
        for box in BOXES.get(exam, ["100.0,100.0,50.0,60.0"]) if detail == OPACITY else [",,,"]:
            labels.append(f"{exam},{box},{int(detail == OPACITY)}")
            details.append(f"{exam},{detail}")
    for number in (1, 2):
        (root / TEST / f"t{number}.dcm").write_bytes(image_bytes(picture(100 + number)))
    (root / LABELS).write_text("\n".join(labels) + "\n")
    (root / DETAILS).write_text("\n".join(details) + "\n")
    if mapping:
        entries = [
            {"img_id": image, "subset_img_id": exam, "orig_labels": []}
            for image, exam in IMAGES.items()
        ]
        (root / MAPPING).write_text(json.dumps(entries))
    return root


def rsna(root: Path, names: list[str] | None = None, **options: object) -> Inventory:
    return scan(Source(kind="rsna", path=root, options=options), names)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_download_as_it_comes(tmp_path: Path) -> None:
    inventory = rsna(challenge(tmp_path))
    assert inventory.classes == ["normal", "pneumonia"]
    rows = inventory.rows.assign(
        exam=[Path(path).stem for path in inventory.rows["path"]]
    ).set_index("exam")
    assert rows["label"].to_dict() == {
        "n1": "normal", "n2": "normal", "x1": "normal", "x2": "normal",
        "o1": "pneumonia", "o2": "pneumonia",
    }  # fmt: skip
    assert rows["detail"].to_dict() == EXAMS
    assert rows["boxes"]["o1"] == [[264, 152, 213, 379], [562, 152, 256, 453]]
    assert rows["boxes"]["n1"] == []
    assert rows["group"]["n1"] == rows["group"]["o1"] == "NIH:00000013"
    assert rows["group"]["x2"] is None
    assert rows["split_published"].isna().all()
    assert inventory.excluded["reason"].value_counts().to_dict() == {
        "table that is read": 3,
        "unlabelled test image": 2,
    }
    assert inventory.notes == [
        "6 labelled images are present of the 26684 of the complete challenge.",
        f"2 images are not in {MAPPING}; each counts as a separate patient.",
    ]


def test_repeated_class_lines_do_not_multiply_rows(tmp_path: Path) -> None:
    """A plain merge of both tables squares an exam's lines: 30,227 rows become 37,629."""
    root = challenge(tmp_path)
    labels, details = pd.read_csv(root / LABELS), pd.read_csv(root / DETAILS)
    assert len(labels.merge(details, on="patientId")) == 9 > len(labels) == 7
    with (root / LABELS).open("a") as file:
        file.write(f"o1,{BOXES['o1'][0]},1\n")
    rows = rsna(root).rows
    assert len(rows) == 6
    assert rows["boxes"].map(len).sum() == 3


def test_detailed_classes(tmp_path: Path) -> None:
    root = challenge(tmp_path)
    inventory = rsna(root, classes="detailed")
    assert inventory.classes == [NORMAL, NOT_NORMAL, OPACITY]
    assert inventory.rows["label"].value_counts().to_dict() == {
        NORMAL: 2,
        NOT_NORMAL: 2,
        OPACITY: 2,
    }
    two_images = rsna(root, [OPACITY, NORMAL], classes="detailed")
    assert two_images.classes == [OPACITY, NORMAL]
    assert two_images.excluded["reason"].value_counts()["class not in the study"] == 2


def test_a_missing_mapping_is_reported(tmp_path: Path) -> None:
    inventory = rsna(challenge(tmp_path, mapping=False))
    assert inventory.rows["group"].isna().all()
    assert any("A patientId of the challenge is an exam" in note for note in inventory.notes)


def test_wrapped_and_doubled_folders(tmp_path: Path) -> None:
    root = challenge(tmp_path / "rsna-pneumonia-detection-challenge")
    shutil.move(root / TRAIN, root / "inner")
    shutil.move(root / "inner", root / TRAIN / TRAIN)
    assert len(rsna(tmp_path).rows) == 6


def test_what_the_tables_contradict_or_lack_is_left_out(tmp_path: Path) -> None:
    many = {f"m{number}": NORMAL for number in range(120)}
    root = challenge(tmp_path, {**EXAMS, **many})
    with (root / LABELS).open("a") as labels, (root / DETAILS).open("a") as details:
        labels.write("n1,1.0,2.0,3.0,4.0,1\n")
        details.write(f"x1,{NORMAL}\n")
    change(root / DETAILS, f"n2,{NORMAL}", f"n2,{OPACITY}")
    (root / TRAIN / "m0.dcm").unlink()
    (root / TRAIN / "stray.dcm").write_bytes(b"x")
    (root / TRAIN / "m1.png").write_bytes(b"x")
    inventory = rsna(root)
    left_out = inventory.excluded.set_index("path")
    assert left_out["reason"].drop(
        [LABELS, DETAILS, MAPPING, f"{TEST}/t1.dcm", f"{TEST}/t2.dcm"]
    ).to_dict() == {
        f"{TRAIN}/n1.dcm": "conflicting label",
        f"{TRAIN}/n2.dcm": "conflicting label",
        f"{TRAIN}/x1.dcm": "conflicting label",
        f"{TRAIN}/m0.dcm": "listed but missing",
        f"{TRAIN}/stray.dcm": "not listed",
        f"{TRAIN}/m1.png": "outside the class folders",
    }
    assert left_out["detail"][f"{TRAIN}/n2.dcm"] == f"Target 0, but class {OPACITY}"


@pytest.mark.parametrize("missing_file", [LABELS, DETAILS, TRAIN, f"{TRAIN}/n1.dcm"])
def test_an_incomplete_download_names_missing_files_and_the_command(
    tmp_path: Path, missing_file: str
) -> None:
    root = challenge(tmp_path)
    path = root / missing_file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MedscaleError, match="holds no complete RSNA challenge") as caught:
        rsna(root)
    assert "kaggle competitions download -c rsna-pneumonia-detection-challenge" in str(caught.value)
    assert ("of the 6 images" if missing_file.startswith(TRAIN) else f"no {missing_file}") in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        (
            LABELS,
            "n1,,,,,0",
            "n1,,,,,2",
            "line 2, is not a line of the challenge's table: patientId n1",
        ),
        (LABELS, "n1,,,,,0", "n1,,,,,1", "line 2"),
        (LABELS, "n1,,,,,0", "n1,1,2,3,4,0", "line 2"),
        (LABELS, "264.0,152.0,213.0,379.0", "264.0,152.0,-213.0,379.0", "line 6"),
        (LABELS, "264.0,152.0,213.0", "264.0,wide,213.0", "line 6"),
        (LABELS, "264.0,152.0,213.0", "264.0,nan,213.0", "line 6"),
        (LABELS, "n1,", ",", "line 2"),
        (LABELS, "Target", "target", "no column Target"),
        (DETAILS, f"n1,{NORMAL}", "n1,Healthy", "line 2.*class Healthy"),
        (MAPPING, "subset_img_id", "subset", "not the RSNA's mapping"),
        (MAPPING, "[", "", "not valid JSON"),
    ],
)
def test_a_broken_table_is_one_message(
    tmp_path: Path, table: str, old: str, new: str, message: str
) -> None:
    root = challenge(tmp_path)
    change(root / table, old, new)
    with pytest.raises(MedscaleError, match=message):
        rsna(root)


def test_wrong_options_and_classes(tmp_path: Path) -> None:
    root = challenge(tmp_path)
    for options in ({"classes": "three"}, {"size": 3}):
        with pytest.raises(MedscaleError, match=r"has the option classes: target \| detailed"):
            rsna(root, **options)
    for classes in (["normal", "ill"], ["normal"], ["normal", "normal"]):
        with pytest.raises(MedscaleError, match="classes of RSNA"):
            rsna(root, classes)


def test_boxes_reach_the_index(tmp_path: Path) -> None:
    exams = {
        **EXAMS,
        **{
            f"{kind}{n}": detail
            for n in range(3, 14)
            for kind, detail in (("n", NORMAL), ("o", OPACITY))
        },
    }
    root = challenge(tmp_path / "raw", exams)
    inventory = rsna(root)
    index, _, summary = audited(root, inventory, Split())
    assert "header" not in index
    assert summary["found"] == len(exams) + 5
    for part in (index, index[index["label"] == "normal"]):
        write_parquet(tmp_path / "index.parquet", part, _schema(part))
        back = pd.read_parquet(tmp_path / "index.parquet")
        assert [[list(box) for box in boxes] for boxes in back["boxes"]] == part["boxes"].tolist()
        assert back["detail"].tolist() == part["detail"].tolist()
    boxes = index.set_index("path")["boxes"]
    assert boxes[f"{TRAIN}/o1.dcm"] == [[264, 152, 213, 379], [562, 152, 256, 453]]
