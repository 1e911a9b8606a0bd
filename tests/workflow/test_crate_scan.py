"""What a crate packs: copies without names, and the search for names: what is no finding."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import hostile
from medscale.base.files import write_csv
from medscale.workflow.crate.anonymous import copy
from medscale.workflow.crate.scan import Finding, Names, names_of_studies, scan


@pytest.mark.parametrize(
    "text",
    [
        "1.2.840.10008.1.2.4.50 is JPEG, torch 2.11.0, 192.168.0.1, 0.123456789",
        "see @article and the folder home/ of /srv/homework; patients: column PatientID of x.csv",
        "PAT-08150 and XPAT-0815X, 47110_left.png",
    ],
)
def test_what_only_looks_alike_is_no_finding(tmp_path, text):
    (tmp_path / "x.md").write_text(text)
    names = Names("a name", ["PAT-0815", "12", "123456", "4711_left.png"])
    assert list(scan(tmp_path, [names])) == []
    assert names.too_short == 1


def test_the_stem_of_a_file_that_is_no_image_is_a_word(tmp_path):
    rows = ["demo.json,excluded,not an image by its name,", "demo_7.png,excluded,zero bytes,"]
    (tmp_path / "audit.csv").write_text("\n".join(["path,action,reason,detail", *rows]) + "\n")
    folders = [tmp_path, tmp_path / "absent"]  # a point of a sweep has no data of its own
    names = names_of_studies(folders, file_names=False)
    text = tmp_path / "text" / "x.md"
    text.parent.mkdir()
    for content, count in (("a demo", 0), ("see demo.json", 1), ("see demo_7", 1)):
        text.write_text(content)
        assert len(list(scan(text.parent, names))) == count, content


def test_a_dicom_file_under_any_name_is_found(tmp_path):
    (tmp_path / "x.txt").write_bytes(hostile.dicom(8, 8, bytes(64)))
    assert list(scan(tmp_path)) == [Finding("x.txt", "whole file", "a DICOM file")]


def test_predictions_of_external_images_keep_all_but_names(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"path": ["a.png", "NA", "a.png"], "label": ["NA", "=1", "NA"], "group": ["p2", "p1", "p2"]}
    ).assign(copy=[None, None, None], seed=1, p_0=[0.1, 1 / 3, 2 / 3])
    write_csv(tmp_path / "original.csv", rows)
    copy(tmp_path / "original.csv", tmp_path / "copy.csv", "external/x/y/predictions.csv")
    names = [f"anonymous0000000{number}" for number in (0, 1)]
    expected = rows.assign(path=[*names, names[0]], group=[names[1], names[0], names[1]])
    write_csv(tmp_path / "expected.csv", expected)
    assert (tmp_path / "copy.csv").read_text() == (tmp_path / "expected.csv").read_text()
