"""The search for ids, hosts and file names in what a crate packs: what is no finding."""

from __future__ import annotations

import pytest

import hostile
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
