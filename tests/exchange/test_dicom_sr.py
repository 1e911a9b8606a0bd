"""Predictions of DICOM images become reports that highdicom reads back."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from typer.testing import CliRunner

import medscale
from data_trees import image_bytes, picture
from medscale.base import extras
from medscale.base.errors import MedscaleError
from medscale.cli import main as cli
from medscale.exchange import dicom_sr
from medscale.serve.predict import Box, Prediction

STATED = "glaucoma=SCT:23986001:Glaucoma"


def read_report(path: Path) -> hd.sr.ComprehensiveSR:
    return hd.sr.srread(path)


def groups(report: hd.sr.ComprehensiveSR) -> list:
    return report.content.get_image_measurement_groups()


def test_a_report_has_finding_probabilities_image_and_patient(result: Path, tmp_path: Path) -> None:
    image = tmp_path / "ct.dcm"
    source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    source.SpecificCharacterSet, source.PatientName = "ISO_IR 100", "Müller^Änne"
    del source.AccessionNumber  # may be empty, and so may be missing
    source.save_as(image)
    command = ["predict", str(result), str(image), "--sr", str(tmp_path / "sr"), "--code", STATED]
    invocation = CliRunner().invoke(cli.main, command)
    assert invocation.exit_code == 0, invocation.output
    assert "1 report in" in invocation.output
    assert "not a medical device" in invocation.output
    (path,) = (tmp_path / "sr").iterdir()
    assert path.name == "ct.dcm.sr.dcm"
    report, expected = read_report(path), medscale.load(result).predict(image)

    assert (report.PatientName, report.PatientID) == ("Müller^Änne", source.PatientID)
    assert report.StudyInstanceUID == source.StudyInstanceUID
    assert report.SeriesInstanceUID != source.SeriesInstanceUID
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert report.SeriesDescription == dicom_sr.RESEARCH

    (group,) = groups(report)
    finding = dicom_sr.class_codes(expected.probabilities, [STATED])[expected.label]
    assert group.finding_type == finding
    (probability,) = group.get_measurements(name=codes.DCM.Probability)
    assert probability.value == pytest.approx(expected.probability)
    assert probability.unit == codes.UCUM.NoUnits
    values = {m.name.meaning: m.value for m in group.get_measurements()}
    (other_class,) = set(expected.probabilities) - {expected.label}
    assert values.keys() == {"Probability", f"Probability of {other_class}"}
    assert values[f"Probability of {other_class}"] == pytest.approx(
        expected.probabilities[other_class]
    )

    (reference,) = group.source_images
    assert reference.referenced_sop_instance_uid == source.SOPInstanceUID
    assert reference.referenced_sop_class_uid == source.SOPClassUID
    assert not reference.referenced_frame_numbers  # the image has one frame
    texts = report.to_json()
    assert "run glaucoma/serial_1cpu" in texts
    assert f"calibration of probabilities: {expected.calibration}" in texts
    assert medscale.load(result).weights[0].sha256 in texts
    assert "Trained as demo: synthetic images" in texts
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == dicom_sr.SCHEME


def test_a_report_names_the_frame_and_a_series_holds_a_study(result: Path, tmp_path: Path) -> None:
    frames, predictor = get_testdata_file("emri_small.dcm"), medscale.load(result)
    items = [(name, name) for name in (f"{frames}[3]", frames)]
    predictions = [predictor.predict(image) for _, image in items]
    evidence = dicom_sr.headers(items)
    items = [("third.dcm", items[0][1]), ("first.dcm", items[1][1])]
    reports = [
        read_report(path)
        for path in dicom_sr.write(tmp_path, predictor, items, evidence, predictions)
    ]
    numbers = [groups(report)[0].source_images[0].referenced_frame_numbers for report in reports]
    assert numbers == [[3], [1]]
    assert len({report.SeriesInstanceUID for report in reports}) == 1
    assert [report.InstanceNumber for report in reports] == [1, 2]


def test_a_report_is_of_the_patient_of_the_predicted_file(tmp_path: Path) -> None:
    source = get_testdata_file("CT_small.dcm")
    shutil.copyfile(get_testdata_file("emri_small.dcm"), tmp_path / "scan.dcm")
    shutil.copyfile(source, tmp_path / "scan.dcm[2]")  # a file, and no frame of scan.dcm
    (header,) = dicom_sr.headers([("scan.dcm[2]", tmp_path / "scan.dcm[2]")])
    assert header.SOPInstanceUID == pydicom.dcmread(source).SOPInstanceUID


def test_boxes_are_regions_with_confidence(result: Path, tmp_path: Path) -> None:
    image = get_testdata_file("CT_small.dcm")
    items, predictor = [("ct.dcm", image)], medscale.load(result)
    evidence = dicom_sr.headers(items)
    boxes = [Box("glaucoma", 10.5, 20, 30, 40, 0.75), Box("glaucoma", 0, 0, 5, 5, 0.5)]
    for number, predicted in enumerate((boxes, [])):
        (path,) = dicom_sr.write(
            tmp_path / str(number),
            predictor,
            items,
            evidence,
            [Prediction("ct.dcm", boxes=predicted)],
        )
        report = read_report(path)
        (whole,) = groups(report)
        assert [m.value for m in whole.get_measurements()] == [len(predicted)]
        regions = report.content.get_planar_roi_measurement_groups()
        assert [r.get_measurements()[0].value for r in regions] == [b.confidence for b in predicted]
        if predicted:
            outline = regions[0].roi.value
            np.testing.assert_allclose(outline.min(axis=0), [10.5, 20])
            np.testing.assert_allclose(outline.max(axis=0), [40.5, 60])
            assert regions[0].finding_type.meaning == "glaucoma"


def test_other_formats_end_in_one_message_before_the_prediction(
    result: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes(picture(0, (40, 40))))
    command = ["predict", str(result), str(tmp_path / "a.png"), "--sr", str(tmp_path / "sr")]
    invocation = CliRunner().invoke(cli.main, command)
    assert isinstance(invocation.exception, MedscaleError)
    assert "--sr needs DICOM images, but these have another format:" in str(invocation.exception)
    assert "a.png" in str(invocation.exception)
    assert not (tmp_path / "sr").exists()


def test_faults_are_named_and_nothing_is_written(result: Path, tmp_path: Path, monkeypatch) -> None:
    source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del source.StudyInstanceUID
    source.save_as(tmp_path / "no.dcm")
    with pytest.raises(MedscaleError, match=r"no\.dcm has no StudyInstanceUID"):
        dicom_sr.headers([("no.dcm", tmp_path / "no.dcm")])
    for name, value in (("PatientSex", "U"), ("StudyTime", "25:61"), ("SOPClassUID", "1.2.3")):
        source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        setattr(source, name, value)
        source.save_as(tmp_path / "odd.dcm")
        with pytest.raises(
            MedscaleError, match=rf"odd\.dcm: a report takes .*{value}.*without --sr"
        ):
            dicom_sr.headers([("odd.dcm", tmp_path / "odd.dcm")])
    long, several = f"glaucoma=S:1:{'x' * 65}", "glaucoma=S:1:a\\b"
    for code in ("other=SCT:1:x", "glaucoma=SCT:1", "glaucoma=SCT::x", long, several):
        with pytest.raises(MedscaleError, match="write CLASS=SCHEME:VALUE:MEANING"):
            dicom_sr.class_codes(["normal", "glaucoma"], [code])
    with pytest.raises(MedscaleError, match="--code gives glaucoma more than once"):
        dicom_sr.class_codes(["normal", "glaucoma"], ["glaucoma=SCT:1:a", "glaucoma=SCT:2:b"])
    with pytest.raises(MedscaleError, match="longer than the 64 characters"):
        dicom_sr.class_codes(["x" * 65])
    with pytest.raises(MedscaleError, match="has a backslash or a control character"):
        dicom_sr.class_codes(["left\\right"])  # would be two meanings
    image = get_testdata_file("CT_small.dcm")
    twice = [("/a/x.dcm", image), ("/b/x.dcm", image)]
    with pytest.raises(MedscaleError, match=r"several images are named x\.dcm"):
        dicom_sr.write(
            tmp_path / "sr", SimpleNamespace(classes=["a", "b"]), twice, [None] * 2, [None] * 2
        )
    for folder, items, code, text in (
        (tmp_path / "sr", twice, [], r"several images are named x\.dcm"),
        (tmp_path / "sr", twice[:1], ["c=SCT:1:x"], "write CLASS=SCHEME:VALUE:MEANING"),
        (tmp_path / "no.dcm", twice[:1], [], r"no\.dcm is a file"),
    ):
        with pytest.raises(MedscaleError, match=text):
            dicom_sr.check(folder, items, ["a", "b"], code)
    long = "psoriasis, lichen planus and other papulosquamous diseases"
    with pytest.raises(MedscaleError, match=f"Probability of {long}.*--code CLASS"):
        dicom_sr.check(tmp_path / "sr", twice[:1], [long, "b"], [])
    dicom_sr.check(tmp_path / "sr", twice[:1], [long, "b"], [f"{long}=99X:1:papulosquamous"])
    assert not (tmp_path / "sr").exists()
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MedscaleError, match=r"need highdicom.*pip install 'medscale\[exchange\]'"):
        dicom_sr.headers(twice)


def test_private_codes_are_those_of_every_study_and_differ() -> None:
    first, second = (
        dicom_sr.class_codes(names)["melanoma"] for names in (["melanoma"], ["a", "melanoma"])
    )
    assert first == second
    assert (first.scheme_designator, first.meaning) == ("99MEDSCALE", "melanoma")
    given = dicom_sr.class_codes(["grade", "grade=3"], ["grade=3=SCT:1:3", "grade=SCT:2:a=b"])
    assert {name: code.meaning for name, code in given.items()} == {"grade": "a=b", "grade=3": "3"}
    assert len({c.value for c in dicom_sr.class_codes(["a b", "a_b", "A b"]).values()}) == 3
