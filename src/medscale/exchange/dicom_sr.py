"""Predictions of DICOM images as DICOM Structured Reports (PS3.16, TID 1500) by highdicom.

A report is a Comprehensive SR (PS3.3, A.35.3) with one measurement group: the most probable class
as finding, the probability of each class, and the image as source. For a detector, each box is a
further group with its region. Classes without a given code have codes of a private coding scheme
(PS3.16, chapter 8).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

import medscale
from medscale.base.errors import MedscaleError
from medscale.base.extras import require
from medscale.base.files import atomic
from medscale.base.paths import new_file
from medscale.base.text import listed
from medscale.data.decoding.formats import PREAMBLE, kind_of
from medscale.data.decoding.silence import silence
from medscale.data.frames import file_and_frame
from medscale.report.marks import mark
from medscale.serve.inputs import NamedImage, mapping
from medscale.serve.predict import Box, Prediction, Predictor

if TYPE_CHECKING:
    from highdicom import sr

SCHEME = "99MEDSCALE"  # private coding schemes begin with 99 (PS3.16, 8.2)
LONGEST_MEANING, LONGEST_VALUE = 64, 16  # characters of the value representations LO and SH
NOT_IN_TEXT = re.compile(r"[\\\x00-\x1f\x7f]")  # a backslash would separate values (PS3.5, 6.2)
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Attributes of type 2, which may be empty; a missing attribute becomes an empty one.
OPTIONAL = ["PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"]
OPTIONAL += ["StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"]
RESEARCH = "Research only: not a medical device, not verified by a person"
SERIES_NUMBER = 9000  # far from the numbers of a scanner's series

Codes = Mapping[str, "sr.CodedConcept"]


def headers(items: Sequence[NamedImage]) -> list[pydicom.Dataset]:
    """Return the headers of DICOM images, to which reports refer.

    Raises:
        MedscaleError: for files of other formats, a file without the UIDs ``IDENTITY``, or a
            header whose values highdicom does not take; the message names them.
    """
    require("DICOM reports", "exchange", "highdicom")
    files = [file_and_frame(str(image))[0] for _, image in items]
    if foreign := [name for (name, _), file in zip(items, files, strict=True) if not _dicom(file)]:
        raise MedscaleError(
            f"--sr needs DICOM images, but these have another format: {listed(foreign)}; predict "
            "them without --sr"
        )
    return [_header(file) for file in files]


def check(
    folder: Path, items: Sequence[NamedImage], classes: Sequence[str], codes: Sequence[str]
) -> None:
    """Check all that ``write`` needs, before images are predicted; arguments as of ``write``.

    Raises:
        MedscaleError: as ``write``, and for a folder that cannot be written.
    """
    concepts = class_codes(classes, codes)
    for name in classes:
        _probability(name, concepts)
    for path in _paths(folder, [name for name, _ in items])[:1]:
        new_file(path)


def write(
    folder: Path,
    predictor: Predictor,
    items: Sequence[NamedImage],
    evidence: Sequence[pydicom.Dataset],
    predictions: Sequence[Prediction],
    codes: Sequence[str] = (),
) -> list[Path]:
    """Write a report for each predicted image, and return the paths of the reports.

    All reports are created before the first is written.

    Args:
        folder: folder of the reports, which are named by their images, such as ``scan.dcm.sr.dcm``.
        predictor: the loaded run.
        items: the images.
        evidence: headers of the images, from ``headers``.
        predictions: predictions of the images, in the same order.
        codes: codes ``CLASS=SCHEME:VALUE:MEANING``, which replace private codes.

    Raises:
        MedscaleError: for a code that is not valid, for a class whose name does not fit into a
            code, and for images of the same name.
    """
    concepts = class_codes(predictor.classes, codes)
    series: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    paths = _paths(folder, [name for name, _ in items])
    reports = {}
    for path, (_, image), header, prediction in zip(
        paths, items, evidence, predictions, strict=True
    ):
        if prediction.error is None:
            study = str(header.StudyInstanceUID)
            numbers[study] += 1
            uid = series.setdefault(study, _uid())
            content = _content(predictor, prediction, header, image, concepts)
            reports[path] = _document(header, content, uid, numbers[study])
    for path, report in reports.items():
        with atomic(path) as temporary:
            report.save_as(temporary)
    return list(reports)


def class_codes(classes: Sequence[str], codes: Iterable[str] = ()) -> dict[str, sr.CodedConcept]:
    """Return the code of each class: one of ``codes``, or a private code.

    A private code depends only on the class's name, so that all studies have the same code.

    Raises:
        MedscaleError: for a code that is not valid, a class with two codes, and a name that does
            not fit into a code.
    """
    given_codes = mapping("--code", (_parse_code(text, classes) for text in codes))
    return {name: given_codes.get(name) or _private(name) for name in classes}


def _parse_code(text: str, classes: Sequence[str]) -> tuple[str, sr.CodedConcept]:
    from highdicom import sr

    name = max((c for c in classes if text.startswith(f"{c}=")), key=len, default=None)
    code = "" if name is None else text[len(name) + 1 :]
    parts = code.split(":", 2)
    fits = len(parts) == 3 and all(parts) and max(map(len, parts[:2])) <= LONGEST_VALUE
    fits = fits and not NOT_IN_TEXT.search(code)
    if name is None or not fits or len(parts[2]) > LONGEST_MEANING:
        raise MedscaleError(
            f"--code {text!r}: write CLASS=SCHEME:VALUE:MEANING, such as "
            f"glaucoma=SCT:23986001:Glaucoma; the classes are {', '.join(classes)}"
        )
    scheme, value, meaning = parts
    return name, sr.CodedConcept(value, scheme, meaning)


def _private(meaning: str) -> sr.CodedConcept:
    """Return the code of the private scheme for a meaning."""
    from highdicom import sr

    if len(meaning) > LONGEST_MEANING or NOT_IN_TEXT.search(meaning):
        raise MedscaleError(
            f"{meaning!r} is longer than the {LONGEST_MEANING} characters of a DICOM code's "
            "meaning, or has a backslash or a control character; give the class another one: "
            "--code CLASS=SCHEME:VALUE:MEANING"
        )
    value = hashlib.sha256(meaning.encode()).hexdigest()[:LONGEST_VALUE].upper()
    return sr.CodedConcept(value, SCHEME, meaning)


def _content(
    predictor: Predictor,
    prediction: Prediction,
    header: pydicom.Dataset,
    image: Any,
    concepts: Codes,
) -> sr.MeasurementReport:
    """Return the content of an image's report."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    frames = _frames(header, image)
    algorithm = _algorithm(predictor, prediction)
    source = sr.SourceImageForMeasurementGroup(
        header.SOPClassUID, header.SOPInstanceUID, referenced_frame_numbers=frames
    )
    group: Any = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(identifier=predictor.name),
        finding_type=None if prediction.label is None else concepts[prediction.label],
        algorithm_id=algorithm,
        measurements=_measurements(prediction, concepts),
        source_images=[source],
    )
    boxes = [
        _region(number, box, header, frames, algorithm, concepts[box.label])
        for number, box in enumerate(prediction.boxes or (), start=1)
    ]
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_device(predictor), name="medscale", model_name=predictor.name
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[group, *boxes],
    )


def _measurements(prediction: Prediction, concepts: Codes) -> list[sr.Measurement]:
    """Return the probabilities of an image, the finding's first, or its number of boxes."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    unit = codes.UCUM.NoUnits
    if prediction.boxes is not None:
        return [sr.Measurement(_private("Number of boxes"), len(prediction.boxes), unit)]
    return [
        sr.Measurement(
            codes.DCM.Probability if name == prediction.label else _probability(name, concepts),
            value,
            unit,
        )
        for name, value in sorted(
            prediction.probabilities.items(), key=lambda pair: pair[0] != prediction.label
        )
    ]


def _probability(name: str, concepts: Codes) -> sr.CodedConcept:
    """Return the code of the probability of a class."""
    return _private(f"Probability of {concepts[name].meaning}")


def _region(
    number: int,
    box: Box,
    header: pydicom.Dataset,
    frames: list[int] | None,
    algorithm: sr.AlgorithmIdentification,
    code: sr.CodedConcept,
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the measurement group of a box: its outline in pixels, and its confidence."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    right, bottom = box.x + box.width, box.y + box.height
    corners = [(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom), (box.x, box.y)]
    region = sr.ImageRegion(
        sr.GraphicTypeValues.POLYLINE,
        np.array(corners),
        sr.SourceImageForRegion(
            header.SOPClassUID, header.SOPInstanceUID, referenced_frame_numbers=frames
        ),
    )
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(identifier=f"box {number}"),
        referenced_region=region,
        finding_type=code,
        algorithm_id=algorithm,
        measurements=[sr.Measurement(codes.DCM.Probability, box.confidence, codes.UCUM.NoUnits)],
    )


def _algorithm(predictor: Predictor, prediction: Prediction) -> sr.AlgorithmIdentification:
    """Return the identification of the network: run, version, weights, and its restrictions."""
    from highdicom import sr

    record = predictor.inference
    restrictions = mark([record.marks])
    weights = [
        f"seed {replicate.seed}, weights SHA-256 {replicate.sha256}"
        for replicate in predictor.weights
    ]
    return sr.AlgorithmIdentification(
        name=f"{record.model.name}, run {predictor.name}",
        version=f"medscale {medscale.__version__}",
        parameters=[
            RESEARCH,
            *([f"Trained as {restrictions}"] if restrictions else []),
            *weights,
            f"calibration of probabilities: {prediction.calibration}",
        ],
    )


def _document(
    header: pydicom.Dataset, content: Sequence[pydicom.Dataset], series: str, number: int
) -> sr.ComprehensiveSR:
    """Return the report with the patient and the study of its image."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import ComprehensiveSR

    scheme = CodingSchemeIdentificationItem(
        SCHEME, name="Classes of medscale; a code is a digest of its meaning"
    )
    return ComprehensiveSR(
        evidence=[header],
        content=content[0],
        series_instance_uid=series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid(),
        instance_number=number,
        manufacturer="medscale",
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[scheme],
        series_description=RESEARCH,
        software_versions=medscale.__version__,
        specific_character_set="ISO_IR 192",  # UTF-8, for class names in any script
    )


def _frames(header: pydicom.Dataset, image: Any) -> list[int] | None:
    """Return the number, from 1, of the predicted frame; None for an image with one frame."""
    if int(header.get("NumberOfFrames") or 1) == 1:
        return None
    return [file_and_frame(str(image))[1] + 1]


def _dicom(file: Path) -> bool:
    try:
        with open(file, "rb") as stream:
            return kind_of(stream.read(PREAMBLE)) == "dicom"
    except OSError as error:
        raise MedscaleError(f"{file} cannot be read: {error.strerror or error}") from None


def _header(file: Path) -> pydicom.Dataset:
    """Read a file's header; missing attributes of ``OPTIONAL`` become empty."""
    try:
        with silence():
            header = pydicom.dcmread(file, stop_before_pixels=True)
            header.decode()
    except Exception as error:  # pydicom raises errors of many types on damaged files
        raise MedscaleError(f"{file}: the DICOM header cannot be read ({error})") from None
    if absent := [name for name in IDENTITY if not header.get(name)]:
        raise MedscaleError(
            f"{file} has no {', '.join(absent)}, so no report can refer to it; predict it "
            "without --sr"
        )
    for name in OPTIONAL:
        if name not in header:
            setattr(header, name, "")
    _check_report(file, header)
    return header


def _check_report(file: Path, header: pydicom.Dataset) -> None:
    """Refuse a header with which no report can be made, by an empty report."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    content = sr.ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    content.ContentSequence = pydicom.Sequence()
    try:
        _document(header, [content], _uid(), 1)
    except Exception as error:  # highdicom raises errors of many types on values that are not valid
        raise MedscaleError(
            f"{file}: a report takes patient and study from the DICOM header, which has a value"
            f" that is not valid ({type(error).__name__}: {error}); correct it, or predict the"
            " image without --sr"
        ) from None


def _paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the path of each report, with the relative path of its image below ``folder``."""
    parts = [PurePath(name) for name in names]
    relative = [
        path.name if path.is_absolute() or ".." in path.parts else str(path) for path in parts
    ]
    if repeated := [name for name, count in Counter(relative).items() if count > 1]:
        raise MedscaleError(
            f"--sr: several images are named {repeated[0]}; name the folder that holds them all"
        )
    return [folder / f"{name}.sr.dcm" for name in relative]


def _device(predictor: Predictor) -> str:
    """Return the UID of the observer; equal networks have the same UID in all reports."""
    digests = "".join(weights.sha256 for weights in predictor.weights)
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digests).int}"


def _uid() -> str:
    """Return a new UID (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid4().int}"
