"""Headers of DICOM files: age, sex, view and patient in the index, and the number of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_trees import APART, facts, image_bytes, index_and_summary, listed, picture
from dicom_images import GREY, dicom
from medscale.data.decoding.dicom import dicom_facts
from medscale.data.decoding.formats import Unreadable
from medscale.data.index import make_index
from medscale.data.inspection import inspect
from medscale.data.inventory import make_inventory
from medscale.data.settings import Split


def test_a_number_of_frames_below_1_is_1(tmp_path: Path) -> None:
    for number in ("0", "-1"):
        (tmp_path / "x.dcm").write_bytes(dicom(GREY, NumberOfFrames=number))
        (fact,) = inspect(str(tmp_path), "x.dcm", "all")
        assert (fact[1] is None) or fact[-2] == 1


@pytest.mark.parametrize(
    ("age", "years", "remark"),
    [
        ("51", 51, None),
        ("051Y", 51, None),
        ("018M", 1.5, None),
        ("000Y", 0, None),
        ("148", None, "PatientAge 148 is over 110 years"),
        ("ABC", None, "PatientAge 'ABC' is not an age"),
        ("", None, None),
    ],
)
def test_ages(age: str, years: float | None, remark: str | None) -> None:
    header_facts = dicom_facts(dicom(GREY, PatientAge=age, PatientSex="F", ViewPosition="PA"))
    expected = {"age": years, "sex": "female", "view": "PA", "patient": None, "remark": remark}
    assert header_facts == expected


def test_headers_are_read_without_pixels() -> None:
    headers = {"PatientAge": "051Y", "PatientSex": "M", "PatientID": " MRN 7 "}
    data = dicom(GREY, **headers)[:-1000]
    expected = {"age": 51, "sex": "male", "view": None, "patient": "MRN 7", "remark": None}
    assert dicom_facts(data) == expected
    with pytest.raises(Unreadable):
        dicom_facts(b"\0" * 200)


def dicom_tree(root: Path) -> pd.DataFrame:
    """List twenty DICOM files and a PNG; every fourth has no headers, one an implausible age."""
    rows = []
    for number in range(21):
        name = f"{number:02d}.{'png' if number == 20 else 'dcm'}"
        pixels = np.asarray(picture(number).convert("L"))
        header_fields = {
            "PatientAge": "148" if number == 1 else str(40 + number),
            "PatientSex": "MF"[number % 2],
            "ViewPosition": "AP",
        }
        data = (
            image_bytes(picture(20))
            if number == 20
            else dicom(pixels, **(header_fields if number % 4 else {}))
        )
        (root / name).write_bytes(data)
        rows.append({"path": name, "label": "ab"[number % 2], "source": "x"})
    return make_inventory(rows, [], ["a", "b"], []).rows


def test_headers_become_columns_of_the_index(tmp_path: Path) -> None:
    rows = dicom_tree(tmp_path)
    inventory = make_inventory(rows.to_dict("records"), [], ["a", "b"], [])
    table = facts(tmp_path, inventory)
    index, left_out = make_index(inventory, table, Split())
    index = index.set_index("path")
    assert list(index.columns[-3:]) == ["age", "sex", "view"]
    assert index["age"].dtype == np.float64
    assert index.loc["02.dcm", ["age", "sex", "view"]].tolist() == [42, "male", "AP"]
    assert index.loc[["00.dcm", "04.dcm", "20.png"], ["age", "sex", "view"]].isna().all(axis=None)
    assert np.isnan(index["age"]["01.dcm"])
    assert index["sex"]["01.dcm"] == "female"
    assert set(zip(index["width"], index["height"], strict=True)) == {(40, 30)}
    kept_rows = left_out[left_out["reason"] == "odd header"]
    assert kept_rows[["path", "reason", "detail"]].to_numpy().tolist() == [
        ["01.dcm", "odd header", "PatientAge 148 is over 110 years; taken as not known"]
    ]
    inventory_with_age = make_inventory(
        rows.assign(age=7.0).to_dict("records"), [], ["a", "b"], [], ["age"]
    )
    # The tables' own column stays.
    assert set(make_index(inventory_with_age, table, Split())[0]["age"]) == {7.0}


def study_of(root: Path, numbers: list[str | None], column: str = "", values: str = "") -> Path:
    """Write a DICOM file for each PatientID, of the classes a and b in turn, and index.csv."""
    root.mkdir()
    lines = [f"path,label{',' if column else ''}{column}"]
    for place, number in enumerate(numbers):
        pixels = np.asarray(picture(place).convert("L"))
        headers = {} if number is None else {"PatientID": number}
        (root / f"{place:02d}.dcm").write_bytes(dicom(pixels, **headers))
        value = f",{values[place]}" if column else ""
        lines.append(f"{place:02d}.dcm,{'ab'[place % 2]}{value}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    return root


def index_of(root: Path, **settings: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    return index_and_summary(root, listed(root, **settings), APART)


def test_patients_of_the_headers_are_not_divided(tmp_path: Path) -> None:
    root = study_of(tmp_path / "raw", [f"MRN{n // 3}" for n in range(24)])
    index, summary = index_of(root)
    assert index["patient"].nunique() == index["group"].nunique() == 8
    assert index.groupby("patient")["split"].nunique().max() == 1
    assert not index["patient"].str.contains("MRN").any()  # hospitals' numbers stay in the files
    assert "patient" not in index.columns[11:]
    assert summary["patients"] == {
        "state": "known",
        "patients": 8,
        "images_of_patients": 24,
        "images_without": 0,
        "from": "a digest of PatientID in the DICOM headers",
    }
    assert any("PatientID in the headers of 24" in note for note in summary["notes"])
    patients_known, sentences = listed(root).patient_sentences()
    assert not patients_known
    assert len(sentences) == 1
    assert sentences[0].startswith("The patients are read from PatientID in the headers")
    (root / "scan.png").touch()
    (root / "index.csv").write_text((root / "index.csv").read_text() + "scan.png,a\n")
    patients_known, (sentence, *_) = listed(root).patient_sentences()
    assert not patients_known
    assert sentence.endswith(" Images of other formats, whose patients are not known: 1.")


def test_a_column_and_an_expression_come_before_the_headers(tmp_path: Path) -> None:
    numbers = [f"MRN{n // 3}" for n in range(24)]
    root = study_of(tmp_path / "raw", numbers, "patient", "ABCDEFGHIJKLMNOPQRSTUVWX")
    assert index_of(root)[0]["patient"].tolist() == list("ABCDEFGHIJKLMNOPQRSTUVWX")
    (root / "index.csv").write_text((root / "index.csv").read_text().replace("patient", "extra"))
    index, summary = index_of(root, patient=r"^\d")
    assert set(index["patient"]) == {"0", "1", "2"}
    assert summary["patients"]["from"] == r"the expression ^\d"


@pytest.mark.parametrize(
    "number", [None, "", "Anonymous", "ANONYMIZED", "00000", "xxx", "REMOVED", "NA", "CONSTANT17"]
)
def test_an_empty_or_constant_number_is_not_known(tmp_path: Path, number: str | None) -> None:
    index, summary = index_of(study_of(tmp_path / "raw", [number] * 12))
    assert index["patient"].isna().all()
    assert index["group"].nunique() == 12
    assert summary["patients"]["state"] == "not known"


def test_some_numbers_are_partly_known(tmp_path: Path) -> None:
    numbers = [f"MRN{n // 2}" if n < 12 else "ANON" for n in range(24)]
    index, summary = index_of(study_of(tmp_path / "raw", numbers))
    assert summary["patients"]["state"] == "partly"
    assert index["patient"].isna().sum() == 12
    assert index["group"].nunique() == 6 + 12


def test_lesions_are_joined_with_the_patients_of_the_headers(tmp_path: Path) -> None:
    numbers = ["P1", "P2", "P2", "P3", "", "P4", "P4", "P5", "P6", "P7", "P8", "P9"]
    root = study_of(tmp_path / "raw", numbers, "lesion_id", "AABBBCDEFGHI")
    index, _ = index_of(root)
    assert index["group"].nunique() == 7  # P1, P2, P3 and lesion B are one group
    assert index["group"][:5].nunique() == 1
    assert index["patient"].isna().sum() == 1
