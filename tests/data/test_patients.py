"""Patients of a person's own images: columns, expressions, missing names, and sentences."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path

import pytest

from data_trees import class_tree, index_and_summary, reasons, write
from medscale.base.errors import MedscaleError
from medscale.data import patients
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.settings import Source, Split

APART = Split(near_duplicates=False, train=0.5, val=0.25, test=0.25)


def inventory_of(
    root: Path, patient: str | None = None, classes: list[str] | None = None
) -> Inventory:
    return scan(Source(kind="folder", path=root, patient=patient), classes)


def study(root: Path, header: str, values: list[str], extra: str = "") -> Path:
    """Images ``images/im<n>.png`` of the classes a and b in turn, with index.csv."""
    lines = [f"path,label,{header}"]
    for number, value in enumerate(values):
        path = write(root / "images" / f"im{number:02d}.png", number + 1)
        lines.append(f"images/{path.name},{'ab'[number % 2]},{value}")
    (root / "index.csv").write_text("\n".join(lines) + "\n" + extra)
    return root


@pytest.mark.parametrize(
    "column",
    [
        *("patient", "patient_id", "Patient", "PatientID", "patientId", "subject", "Subject ID"),
        *("participant_id", "person", "PID", "mrn", "anon_patient_id", "hospital_patient_no"),
    ],
)
def test_a_column_that_looks_like_a_patients_is_read(tmp_path: Path, column: str) -> None:
    root = study(tmp_path, column, [f"P{n // 4}" for n in range(24)])
    index, summary = index_and_summary(root, inventory_of(root), APART)
    assert index["group"].nunique() == 6
    assert index.groupby("patient")["split"].nunique().max() == 1
    assert summary["patients"] == {
        "state": "known",
        "patients": 6,
        "images_of_patients": 24,
        "images_without": 0,
        "from": f"column {column} of index.csv",
    }
    assert any("read as the patient" in note for note in summary["notes"]) == (column != "patient")


@pytest.mark.parametrize(
    "column", ["patient_age", "patient_sex", "age", "lesion", "case", "study", "eye", "source_id"]
)
def test_a_fact_of_a_patient_is_not_the_patient(column: str) -> None:
    assert patients.patient_column(["path", "label", column], "index.csv") is None


def test_lesions_are_kept_together_but_are_no_patients(tmp_path: Path) -> None:
    root = study(tmp_path, "lesion_id", [f"L{n // 4}" for n in range(24)])
    index, summary = index_and_summary(root, inventory_of(root), APART)
    assert index["group"].nunique() == 6
    assert index["patient"].isna().all()
    assert summary["patients"]["state"] == "not known"
    assert "images of the same lesion_id are kept together" in summary["notes"][0]


def test_patients_come_before_lesions_and_two_columns_are_refused(tmp_path: Path) -> None:
    columns = ["path", "lesion_id", "patient_id"]
    assert patients.patient_column(columns, "index.csv") == "patient_id"
    assert patients.patient_column([*columns, "patient"], "index.csv") == "patient"
    root = study(tmp_path, "patient_id,subject", [f"P{n // 2},S{n // 4}" for n in range(12)])
    with pytest.raises(MedscaleError, match=r"patient_id, subject .* source\.patient"):
        inventory_of(root)
    assert inventory_of(root, "subject").rows["group"].nunique() == 3


@pytest.mark.parametrize("missing", ["NA", "nan", "None", "NULL", "n/a", "unknown", "?", ""])
def test_a_missing_patient_is_not_a_patient(tmp_path: Path, missing: str) -> None:
    values = [missing if n % 2 else f"P{n // 2}" for n in range(24)]
    root = study(tmp_path, "patient", values)
    index, summary = index_and_summary(root, inventory_of(root), APART)
    assert index["group"].nunique() == 24
    assert summary["patients"]["state"] == "partly"
    assert summary["patients"]["images_without"] == 12
    assert "12 images are of 12 patients; of the other 12" in summary["notes"][0]


CHEST = [
    f"{split}/{label}/{name}.png"
    for split in ("train", "test")
    for label, name in [
        *(("PNEUMONIA", f"person{n}_{kind}_{n + 7}") for n in (1, 2, 3) for kind in ("v", "b")),
        *(("NORMAL", f"scan{n}") for n in range(4)),
    ]
]


def test_names_that_share_a_prefix_are_noticed(tmp_path: Path) -> None:
    for number, path in enumerate(CHEST):
        write(tmp_path / path, number + 1)
    assert inventory_of(tmp_path).patient_notes == [
        "12 names repeat 3 prefixes such as person3_: are these patients? Then set source.patient: "
        r"'^person(\d+)_'"
    ]
    inventory = inventory_of(tmp_path, r"person(\d+)_")
    assert inventory.rows["group"].nunique() == 3
    index, summary = index_and_summary(tmp_path, inventory, APART)
    assert index.groupby("patient")["split"].nunique().max() == 1
    assert (summary["patients"]["state"], summary["patients"]["patients"]) == ("partly", 3)


@pytest.mark.parametrize(
    ("path", "folders", "example", "further"),
    [
        ("{label}/p{n}/{k}.png", 6, "p0", ""),
        ("{label}/p{n}/study1/{k}.png", 6, "p0", ""),  # as CheXpert
        ("{label}/p{n}/s{n}{k}/1.png", 12, "s00", "the 6 folders above, such as p0"),  # as MIMIC
    ],
)
def test_folders_of_patients_are_noticed_at_their_level(
    tmp_path: Path, path: str, folders: int, example: str, further: str
) -> None:
    for number in range(6):
        for copy in range(2):
            name = path.format(label="xy"[number % 2], n=number, k=copy)
            write(tmp_path / name, 2 * number + copy + 1)
    (note,) = inventory_of(tmp_path).patient_notes
    assert note.startswith(f"12 images are in {folders} folders such as {example}: are these")
    assert further in note
    assert ("folders above" in note) == bool(further)
    expression = note.rpartition("'")[0].rpartition("'")[2]
    assert inventory_of(tmp_path, expression).rows["group"].nunique() == 6


PEOPLE = ("anna", "berta", "carl", "dora")


@pytest.mark.parametrize(
    ("names", "expression"),
    [
        ([f"{name}_Meier_{n}" for name in PEOPLE for n in (1, 2)], r"^(\D+)\d"),
        ([f"Meier, {name} 2020-01-0{n}" for name in PEOPLE for n in (1, 2)], r"^(\D+)\d"),
        ([f"{name}_{side}" for name in PEOPLE for side in ("left", "right")], r"^(.+)[_\- ]"),
        ([f"{s}_{n}_{k}" for s in "ab" for n in (1, 2) for k in (0, 1)], r"^(.*?\d+)[_]"),
    ],
)
def test_names_of_people_are_noticed(tmp_path: Path, names: list[str], expression: str) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "xy"[number % 2] / f"{name}.png", number + 1)
    (note,) = inventory_of(tmp_path).patient_notes
    assert note.startswith("8 names repeat 4 prefixes")
    assert note.endswith(f"'{expression}'")
    groups = inventory_of(tmp_path, expression).rows["group"]
    assert groups.value_counts().tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("name", ["IMG_{n:04d}", "x ({n})", "{n}", "x-{n}"])
def test_numbered_images_are_no_patients(tmp_path: Path, name: str) -> None:
    for number in range(8):
        write(tmp_path / "xy"[number % 2] / f"{name.format(n=number)}.png", number + 1)
    assert inventory_of(tmp_path).patient_notes == []


@pytest.mark.parametrize(
    "name",
    [
        "{split}{label[0]}{n:02d}",  # trainc01
        "{split}_{label[0]}_{n:02d}",
        "{label}-{split}-{n}",
        "{split}_{label[0]}",
    ],
)
def test_names_of_classes_and_splits_are_no_patients(tmp_path: Path, name: str) -> None:
    cases = [(s, c, n) for s in ("train", "valid") for c in ("cancer", "healthy") for n in (1, 2)]
    for number, (split, label, n) in enumerate(cases):
        file = name.format(split=split, label=label, n=n)
        write(tmp_path / label / f"{file}.png", number + 1)
        write(tmp_path / label / f"{split}_{label[0]}" / f"{number}.png", number + 20)
    assert inventory_of(tmp_path).patient_notes == []


def test_names_in_other_letters_are_noticed(tmp_path: Path) -> None:
    for number, name in enumerate("张李王赵张李王赵"):
        write(tmp_path / "xy"[number % 2] / f"{name}{number}.png", number + 1)
    (note,) = inventory_of(tmp_path).patient_notes
    assert note.startswith("8 names repeat 4 prefixes")


def test_names_that_the_expression_does_not_match_are_noted(tmp_path: Path) -> None:
    for number, name in enumerate(("x/p1_a", "x/p1_b", "y/p2_a", "y/scan")):
        write(tmp_path / f"{name}.png", number + 1)
    assert inventory_of(tmp_path, r"^p(\d)_").patient_notes == [
        r"source.patient ^p(\d)_ gives no patient for 1 paths such as y/scan.png"
    ]


@pytest.mark.parametrize(
    ("expression", "path", "patient"),
    [
        (r"^(\d+)_(left|right)", "normal/0123_left.jpg", "0123"),
        (r"^(\d+)_\d+", "effusion/00000013_026.png", "00000013"),
        (r"/(patient\d+)/", "train/x/patient00002/study1/view1.jpg", "patient00002"),
        (r"([^/]+)/[^/]+$", "a/p7/1.png", "p7"),
        (r"(?P<eye>left|right)_(?P<patient>\d+)", "a/left_5.png", "5"),
        (r"sub-\d+", "a/sub-01_t1.png", "sub-01"),
    ],
)
def test_an_expression_finds_the_patient(expression: str, path: str, patient: str) -> None:
    assert patients.by_pattern([path, "!.png"], expression) == [patient, None]


@pytest.mark.parametrize(
    ("setting", "message"),
    [("(", "neither a column"), ("patiant", r"matches none of the 4 paths \(first: a/0\.png\)")],
)
def test_a_wrong_setting_is_one_message(tmp_path: Path, setting: str, message: str) -> None:
    class_tree(tmp_path, {"a": 2, "b": 2})
    with pytest.raises(MedscaleError, match=message):
        inventory_of(tmp_path, setting)


def test_another_kind_refuses_the_setting(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="for the kind folder"):
        scan(Source(kind="skin", path=tmp_path, patient="x"), None)


def test_a_dataset_whose_groups_are_copies_has_no_patients(tmp_path: Path) -> None:
    write(tmp_path / "Acne/one.png", 1)
    write(tmp_path / "Acne/aug_1_one.png", 2)
    write(tmp_path / "Eczema/two.png", 3)
    inventory = scan(Source(kind="skin", path=tmp_path), None)
    assert inventory.rows["group"].notna().all()
    assert inventory.patient_names.isna().all()


def test_contradicting_entries_are_left_out_and_their_patients_joined(tmp_path: Path) -> None:
    splits = ["train"] * 12 + ["val", "test"] * 6
    values = [f"P{n // 2},{split}" for n, split in enumerate(splits)]
    repeated_rows = "images/im00.png,a,P5,test\nimages/im03.png,b,P1,train\nimages/im05.png,b,,\n"
    root = study(tmp_path, "patient,split", values, repeated_rows)
    inventory = inventory_of(root)
    assert reasons(inventory) == {"images/im00.png": "contradicting entries"}
    detail = inventory.excluded["detail"].iloc[0]
    assert detail == "index.csv names it with patient P0 and P5, with split train and test"
    groups = inventory.rows.set_index("path")["group"]
    assert groups["images/im01.png"] == groups["images/im10.png"] == "P0"
    assert groups["images/im03.png"] == "P1"
    assert groups["images/im05.png"] == "P2"
    index, summary = index_and_summary(root, inventory, APART)
    assert summary["found"] == 24
    assert index[index["patient"] == "P0"]["split"].nunique() == 1


def test_metadata_that_differ_are_missing(tmp_path: Path) -> None:
    repeated_rows = "images/im00.png,a,P0,44\n"
    root = study(tmp_path, "patient,age", [f"P{n // 2},{30 + n}" for n in range(8)], repeated_rows)
    ages = inventory_of(root).rows.set_index("path")["age"]
    assert math.isnan(ages["images/im00.png"])
    assert ages["images/im01.png"] == 31


def test_numbers_of_index_csv_are_numbers(tmp_path: Path) -> None:
    values = [f"{30 + n},{['NA', '2.5'][n % 2]},00{n},{['4', 'x'][n % 2]}" for n in range(8)]
    inventory = inventory_of(study(tmp_path, "age,dose,code,mixed", values))
    rows = inventory.rows
    assert rows["age"].tolist() == [float(30 + n) for n in range(8)]
    assert rows["dose"].isna().tolist() == [True, False] * 4
    assert rows["code"].tolist() == [f"00{n}" for n in range(8)]
    assert rows["mixed"].tolist() == ["4", "x"] * 4
    assert any("mixed has numbers and words (such as 'x')" in note for note in inventory.notes)


@pytest.mark.parametrize("path", ["/home/me/data/images/im{:02d}.png", "im{:02d}.jpg"])
def test_paths_that_lead_nowhere_are_about_the_table(tmp_path: Path, path: str) -> None:
    study(tmp_path, "patient", [f"P{n}" for n in range(4)])
    lines = ["path,label", *(f"{path.format(n)},{'ab'[n % 2]}" for n in range(4))]
    (tmp_path / "index.csv").write_text("\n".join(lines))
    message = rf"index.csv names 4 images, none .*first: {path.format(0)}\).*images/im00\.png"
    with pytest.raises(MedscaleError, match=message):
        inventory_of(tmp_path)


def test_lines_that_end_in_a_comma_are_read(tmp_path: Path) -> None:
    study(tmp_path, "patient", [f"P{n // 2}," for n in range(4)])
    assert inventory_of(tmp_path).rows["group"].tolist() == ["P0", "P0", "P1", "P1"]
    study(tmp_path, "patient", [f"P{n // 2},Smith" for n in range(4)])
    with pytest.raises(MedscaleError, match="row 2 has more values than the 3 columns"):
        inventory_of(tmp_path)


def test_capitals_and_underscores_in_the_header(tmp_path: Path) -> None:
    study(tmp_path, "_reason,_detail,_frame,Split", [f"r{n},d,{n},train" for n in range(4)])
    text = (tmp_path / "index.csv").read_text().replace("path,label", "Path,Label", 1)
    (tmp_path / "index.csv").write_text(text)
    inventory = inventory_of(tmp_path)
    assert set(inventory.rows["split_published"]) == {"train"}
    for number in range(4, 12):
        write(tmp_path / f"images/im{number:02d}.png", number + 1)
    lines = [f"images/im{n:02d}.png,{'ab'[n % 2]},r{n},d,{n},train" for n in range(4, 12)]
    (tmp_path / "index.csv").write_text(text + "\n".join(lines))
    index, _ = index_and_summary(tmp_path, inventory_of(tmp_path), APART)
    assert index["_reason"].tolist() == [f"r{n}" for n in range(12)]
    assert index["_frame"].tolist() == list(range(12))


def test_classes_match_in_any_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Ödem") for form in ("NFC", "NFD"))
    for number, folder in enumerate((composed, decomposed, "b")):
        write(tmp_path / folder / f"{number}.png", number + 1)
    for name in (composed, decomposed):
        inventory = inventory_of(tmp_path, classes=[name, "b"])
        assert inventory.classes == [composed, "b"]
        assert inventory.rows["label"].tolist().count(composed) == 2


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    class_tree(tmp_path / "images", {"a": 2, "b": 2})
    assert Source(kind="folder", path=Path("~/images")).path == tmp_path / "images"
    assert len(inventory_of(Path("~/images")).rows) == 4


def test_validation_is_taken_from_training_where_none_is_published(tmp_path: Path) -> None:
    number = 0
    for split, count in (("train", 16), ("test", 6)):
        for label in "ab":
            for _ in range(count):
                write(tmp_path / split / label / f"p{number // 2}_{number}.png", number + 1)
                number += 1
    division = Split(mode="published", near_duplicates=False, train=0.6, val=0.2, test=0.2)
    inventory = inventory_of(tmp_path, r"^p(\d+)_")
    index, summary = index_and_summary(tmp_path, inventory, division)
    assert index["split"].value_counts().to_dict() == {"train": 24, "val": 8, "test": 12}
    assert (index["path"].str.startswith("test") == (index["split"] == "test")).all()
    assert index.groupby("patient")["split"].nunique().max() == 1
    assert index.groupby("label", observed=True)["split"].value_counts().min() == 4
    note = "The published split has no validation images: 8 of its training images are taken"
    assert any(note in text for text in summary["notes"])
    index_again, _ = index_and_summary(tmp_path, inventory, division)
    assert index_again["split"].equals(index["split"])


def test_conflicting_images_are_searched_before_they_are_left_out(tmp_path: Path) -> None:
    class_tree(tmp_path / "train", {"a": 3, "b": 12})
    class_tree(tmp_path / "test", {"a": 3, "b": 12}, seed=50)
    content = write(tmp_path / "train/a/z.png", 99).read_bytes()
    (tmp_path / "test/b/z.png").write_bytes(content)  # the same image with another label
    for number in range(2):
        (tmp_path / f"train/b/{number}.png").write_bytes(
            (tmp_path / f"train/a/{number}.png").read_bytes()
        )
    division = Split(mode="published", near_duplicates=False)
    _, summary = index_and_summary(tmp_path, inventory_of(tmp_path), division)
    assert summary["by_reason"]["conflicting label"] == 6
    notes = "\n".join(summary["notes"])
    assert "2 of the 6 images with conflicting labels, which are left out" in notes
    assert "Class a has only 4 images left (left out: conflicting label 3)." in notes


@pytest.mark.parametrize(
    ("first", "second"), [("12", "12.0"), ("P7", "p7"), ("007", "7"), ("Anna  Li", "anna li")]
)
def test_spellings_of_a_name_are_one_patient(tmp_path: Path, first: str, second: str) -> None:
    """They would stand on both sides of the split."""
    root = study(tmp_path, "patient", [*[first, second] * 3, *(f"Q{n // 2}x" for n in range(18))])
    index, summary = index_and_summary(root, inventory_of(root), APART)
    assert index["patient"].iloc[:6].nunique() == 1
    assert index["patient"].nunique() == 10
    (note,) = summary["notes"]
    assert note.startswith("index.csv: 1 names of patients have several spellings, such as ")


def test_names_of_images_instead_of_patients_are_noticed(tmp_path: Path) -> None:
    root = study(tmp_path, "patient", [f"E{n}x" for n in range(12)])
    _, summary = index_and_summary(root, inventory_of(root), APART)
    (note,) = summary["notes"]
    assert note.startswith("No patient has two images. If this is wrong")


@pytest.mark.parametrize("name", ["anonymous", "ANONYMIZED", "de-identified", "***", "no name"])
def test_a_text_in_place_of_a_name_is_no_patient(tmp_path: Path, name: str) -> None:
    root = study(tmp_path, "patient", [*[name] * 6, *(str(n // 2) for n in range(18))])
    index, summary = index_and_summary(root, inventory_of(root), APART)
    assert index["patient"].isna().tolist() == [True] * 6 + [False] * 18
    assert index["group"].nunique() == 6 + 9
    assert "of the other 6 the patients are not known" in summary["notes"][0]


def test_a_large_group_changes_the_shares_and_a_note_says_so(tmp_path: Path) -> None:
    root = study(tmp_path, "patient", [*["P1"] * 16, *(f"Q{n}" for n in range(8))])
    index, summary = index_and_summary(root, inventory_of(root), APART)
    shares = index["split"].value_counts(normalize=True)
    (note,) = summary["notes"]
    assert note.endswith("the largest group has 16 of 24 images.")
    for name in ("train", "val", "test"):
        text = f"{name} has {shares[name]:.0%} of the images instead of"
        assert (text in note) == (abs(shares[name] - getattr(APART, name)) > 0.1)


def test_spellings_in_file_names_and_headers_are_one_patient(tmp_path: Path) -> None:
    for number, name in enumerate(["P1_a", "p01_b", "P2_a", "P2_b"]):
        write(tmp_path / "ab"[number % 2] / f"{name}.png", number + 1)
    inventory = inventory_of(tmp_path, patient="^([Pp][0-9]+)_")
    assert inventory.rows["group"].nunique() == 2
    assert "1 names of patients have several spellings" in inventory.patient_notes[0]
    assert len(set(patients.from_headers(["0012", "12", "13"]))) == 2
