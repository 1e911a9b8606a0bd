"""Patients of a table: columns, missing names, spellings, and what the audit says about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_trees import APART, class_tree, index_and_summary, listed, reasons, write
from medscale.base.errors import MedscaleError
from medscale.data import patients
from medscale.data.settings import Split


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
    index, summary = index_and_summary(root, listed(root), APART)
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
    index, summary = index_and_summary(root, listed(root), APART)
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
        listed(root)
    assert listed(root, patient="subject").rows["group"].nunique() == 3


def test_contradicting_entries_are_left_out_and_their_patients_joined(tmp_path: Path) -> None:
    splits = ["train"] * 12 + ["val", "test"] * 6
    values = [f"P{n // 2},{split}" for n, split in enumerate(splits)]
    repeated_rows = "images/im00.png,a,P5,test\nimages/im03.png,b,P1,train\nimages/im05.png,b,,\n"
    root = study(tmp_path, "patient,split", values, repeated_rows)
    inventory = listed(root)
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


def test_validation_is_taken_from_training_where_none_is_published(tmp_path: Path) -> None:
    number = 0
    for split, count in (("train", 16), ("test", 6)):
        for label in "ab":
            for _ in range(count):
                write(tmp_path / split / label / f"p{number // 2}_{number}.png", number + 1)
                number += 1
    division = Split(mode="published", near_duplicates=False, train=0.6, val=0.2, test=0.2)
    inventory = listed(tmp_path, patient=r"^p(\d+)_")
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
    _, summary = index_and_summary(tmp_path, listed(tmp_path), division)
    assert summary["by_reason"]["conflicting label"] == 6
    notes = "\n".join(summary["notes"])
    assert "2 of the 6 images with conflicting labels, which are left out" in notes
    assert "Class a has only 4 images left (left out: conflicting label 3)." in notes


@pytest.mark.parametrize(
    ("first", "second"),
    [("12", "12.0"), ("P7", "p7"), ("007", "7"), ("Anna  Li", "anna li"), ("P7", "P7\u200b")],
)
def test_spellings_of_a_name_are_one_patient(tmp_path: Path, first: str, second: str) -> None:
    """They would stand on both sides of the split."""
    root = study(tmp_path, "patient", [*[first, second] * 3, *(f"Q{n // 2}x" for n in range(18))])
    index, summary = index_and_summary(root, listed(root), APART)
    assert index["patient"].iloc[:6].nunique() == 1
    assert index["patient"].nunique() == 10
    (note,) = summary["notes"]
    assert note.startswith("index.csv: 1 names of patients have several spellings, such as ")


def test_rounded_numbers_of_patients_are_noticed(tmp_path: Path) -> None:
    names = [*["1.23457E+11"] * 4, *(f"Q{n // 2}" for n in range(20))]
    _, summary = index_and_summary(tmp_path, listed(study(tmp_path, "patient", names)), APART)
    (note,) = summary["notes"]
    assert note.startswith(
        "index.csv: 1 names of patients are rounded numbers, such as 1.23457E+11"
    )
    assert summary["patients"]["patients"] == 11


def test_names_of_images_instead_of_patients_are_noticed(tmp_path: Path) -> None:
    root = study(tmp_path, "patient", [f"E{n}x" for n in range(12)])
    _, summary = index_and_summary(root, listed(root), APART)
    (note,) = summary["notes"]
    assert note.startswith("No patient has two images. If this is wrong")


def test_a_large_group_changes_the_shares_and_a_note_says_so(tmp_path: Path) -> None:
    root = study(tmp_path, "patient", [*["P1"] * 16, *(f"Q{n}" for n in range(8))])
    index, summary = index_and_summary(root, listed(root), APART)
    shares = index["split"].value_counts(normalize=True)
    (note,) = summary["notes"]
    assert note.endswith("the largest group has 16 of 24 images.")
    for name in ("train", "val", "test"):
        text = f"{name} has {shares[name]:.0%} of the images instead of"
        assert (text in note) == (abs(shares[name] - getattr(APART, name)) > 0.1)


@pytest.mark.parametrize(
    "name",
    [
        *("NA", "nan", "None", "NULL", "n/a", "unknown", "?", ""),
        *("anonymous", "ANONYMIZED", "de-identified", "***", "no name"),
    ],
)
def test_a_missing_name_and_a_text_in_its_place_are_no_patient(tmp_path: Path, name: str) -> None:
    root = study(tmp_path, "patient", [*[name] * 6, *(str(n // 2) for n in range(18))])
    index, summary = index_and_summary(root, listed(root), APART)
    assert index["patient"].isna().tolist() == [True] * 6 + [False] * 18
    assert index["group"].nunique() == 6 + 9
    assert (summary["patients"]["state"], summary["patients"]["images_without"]) == ("partly", 6)
    note = "18 images are of 9 patients; of the other 6 the patients are not known"
    assert note in summary["notes"][0]
