"""Synthetic chest X-rays in the layout of the RSNA challenge: DICOM files, both tables, mapping, traps included."""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from pydantic import Field

from medscale.base.files import write_csv, write_json
from medscale.data.demo import common
from medscale.data.demo.chest import Anatomy, Opacity, radiograph
from medscale.data.sources.rsna import BOX, CLASSES, DETAILS, LABELS, MAPPING, TEST, TRAIN

SUBMISSION = "stage_2_sample_submission.csv"
NORMAL, NOT_NORMAL, OPACITY = CLASSES["detailed"]
SHARES = {
    NORMAL: 0.3,
    NOT_NORMAL: 0.3,
    OPACITY: 0.4,
}  # more opacities than in the real set: a small set needs enough
AP = {NORMAL: 0.25, NOT_NORMAL: 0.45, OPACITY: 0.65}  # share of AP views
AGES = {NORMAL: 43, NOT_NORMAL: 48, OPACITY: 51}  # means in years; the standard deviation is 16
PER_PATIENT = 2  # exams a patient, on average
IMPLAUSIBLE_AGE = 148
STORAGE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage, as in the real set
QUALITY = 92  # of JPEG


class Options(common.Options):
    """Options of the synthetic chest X-rays."""

    exams: int = Field(400, ge=40, le=100_000, description="labelled images")
    size: int = Field(256, ge=64, le=4096, description="pixels a side; the real set has 1024")
    tests: int = Field(6, ge=0, description="images without a label")
    mapping: bool = Field(True, description="with the file that tells the patient of each exam")
    classes: Literal["target", "detailed"] = Field(
        "target", description="which classes the source module takes"
    )

    @property
    def images(self) -> int:
        """Labelled ones, of which one is cut off, and test images."""
        return self.exams + self.tests


@dataclass(frozen=True)
class Exam:
    """One image to draw and what the tables and headers say of it."""

    number: int
    name: str
    patient: int
    detail: str
    sex: str
    age: int
    view: str
    folder: str
    anatomy: Anatomy
    opacities: tuple[Opacity, ...]
    line: bool
    nodule: bool

    @property
    def path(self) -> str:
        """Of its file, relative to the raw folder."""
        return f"{self.folder}/{self.name}.dcm"


def generate(settings: Options, out: Path) -> None:
    """Draw the X-rays and write them to ``out`` with the tables, and with the traps of the real download.

    Pneumonia is one to three soft opacities whose boxes the labels give. Their contrast varies down to what noise and
    ribs hide, so that no classifier can be right on all; images that are neither normal nor have an opacity show a
    large heart, a line or a nodule. AP views are more frequent with pneumonia and patients a little older. The tables
    repeat an exam's line for each box; ages come without a Y; one is implausible; the last labelled file is cut off.
    The same options give the same bytes with the same versions of OpenCV and pydicom.

    Raises:
        MedscaleError: when ``out`` holds files that no generator has written.
    """
    exams = plan(settings)
    tables = [LABELS, DETAILS, SUBMISSION, *([MAPPING] if settings.mapping else [])]
    common.clear(out, [*tables, *(exam.path for exam in exams)])
    common.write_all(partial(_write, settings, out), exams, "drawing X-rays")
    labelled = [exam for exam in exams if exam.folder == TRAIN]
    common.write_odd_files(out, {labelled[-1].path: common.TRUNCATED}, out / labelled[-1].path)
    _write_tables(settings, out, exams)
    common.finish(out, "rsna", settings, settings.images)


def plan(settings: Options) -> list[Exam]:
    """Every exam with its finding, patient and anatomy; unlabelled ones last."""
    rng = np.random.default_rng(settings.seed)
    total = settings.exams + settings.tests
    bounds = np.rint(np.cumsum([0, *SHARES.values()]) * settings.exams).astype(int)
    labelled = rng.permutation(np.repeat([*SHARES], np.diff(bounds)))
    details = [*labelled.tolist(), *rng.choice([*SHARES], settings.tests).tolist()]
    patients = rng.integers(0, -(-total // PER_PATIENT), total)
    return [
        _exam(settings, number, str(details[number]), int(patients[number]))
        for number in range(total)
    ]


def _exam(settings: Options, number: int, detail: str, patient: int) -> Exam:
    """One exam: what lasts comes from the patient's random numbers, the rest from its own."""
    person = np.random.default_rng([settings.seed, 1, patient])
    rng = np.random.default_rng([settings.seed, 2, number])
    sex = "M" if person.random() < 0.57 else "F"
    view = "AP" if rng.random() < AP[detail] else "PA"
    anatomy = Anatomy.draw(person, rng, view == "AP")
    odd = rng.choice(["heart", "line", "nodule"]) if detail == NOT_NORMAL else None
    if odd == "heart":
        anatomy = anatomy.with_larger_heart(rng.uniform(1.15, 1.4))
    count = rng.choice([1, 2, 3], p=[0.5, 0.4, 0.1]) if detail == OPACITY else 0
    sides = [*rng.permutation([-1, 1]), rng.choice([-1, 1])][:count]
    grey = float(np.clip(rng.gamma(4, 11), 8, 85))
    return Exam(
        number=number,
        name=str(uuid.UUID(bytes=rng.bytes(16), version=4)),
        patient=patient,
        detail=detail,
        sex=sex,
        age=IMPLAUSIBLE_AGE if number == 0 else int(np.clip(rng.normal(AGES[detail], 16), 2, 92)),
        view=view,
        folder=TRAIN if number < settings.exams else TEST,
        anatomy=anatomy,
        opacities=tuple(
            anatomy.opacity(rng, int(side), grey * rng.uniform(0.8, 1.2)) for side in sides
        ),
        line=odd == "line",
        nodule=odd == "nodule",
    )


def _write(settings: Options, out: Path, exam: Exam) -> None:
    """Draw one exam and write its DICOM file."""
    rng = np.random.default_rng([settings.seed, 3, exam.number])
    pixels = radiograph(
        rng,
        exam.anatomy,
        settings.size,
        opacities=exam.opacities,
        line=exam.line,
        nodule=exam.nodule,
    )
    (out / exam.path).write_bytes(_dicom(exam, pixels))


def _dicom(exam: Exam, pixels: np.ndarray) -> bytes:
    """The exam's file as the challenge's are: JPEG Baseline, 8 bit, MONOCHROME2, an age without unit."""
    from pydicom.uid import JPEGBaseline8Bit, generate_uid

    headers = {
        "SOPInstanceUID": generate_uid(entropy_srcs=[exam.name]),
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": exam.view,
        "PatientName": exam.name,
        "PatientID": exam.name,
        "PatientSex": exam.sex,
        "PatientAge": str(exam.age),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "LossyImageCompression": "01",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return dicom_file(headers, [coded], JPEGBaseline8Bit)


def dicom_file(
    headers: Mapping[str, Any], pixels: bytes | list[bytes] | None, syntax: str
) -> bytes:
    """A DICOM file (PS3.10) of the class that the challenge's files have.

    Args:
        headers: values by keyword, taken as they are, wrong ones too.
        pixels: bytes of the pixels, or a coded stream a frame where the syntax is a compressed one; None for none.
        syntax: UID of the transfer syntax.
    """
    from pydicom import config, dcmwrite
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.tag import Tag
    from pydicom.uid import UID

    dataset, dataset.file_meta = Dataset(), FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    for name, value in {"SOPClassUID": STORAGE, **headers}.items():
        dataset.add(
            DataElement(name, dictionary_VR(Tag(name)), value, validation_mode=config.IGNORE)
        )
    if pixels is not None:
        wide = headers["BitsAllocated"] > 8 and isinstance(pixels, bytes)
        value = pixels if isinstance(pixels, bytes) else encapsulate(pixels)
        dataset.add(DataElement("PixelData", "OW" if wide else "OB", value))
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _write_tables(settings: Options, out: Path, exams: list[Exam]) -> None:
    """Labels and classes (a line a box, or one), a sample submission for the test images, the patients."""
    labels: list[dict[str, object]] = []
    for exam in exams:
        boxes = [
            dict(zip(BOX, opacity.box(settings.size), strict=True)) for opacity in exam.opacities
        ]
        target = int(exam.detail == OPACITY)
        labels += [{"patientId": exam.name, **box, "Target": target} for box in boxes or [{}]]
    by_name = {exam.name: exam for exam in exams}
    details = [
        {"patientId": line["patientId"], "class": by_name[str(line["patientId"])].detail}
        for line in labels
    ]
    known = [by_name[str(line["patientId"])].folder == TRAIN for line in labels]
    write_csv(out / LABELS, pd.DataFrame(labels, columns=["patientId", *BOX, "Target"])[known])
    write_csv(out / DETAILS, pd.DataFrame(details)[known])
    unknown = [exam.name for exam in exams if exam.folder == TEST]
    write_csv(
        out / SUBMISSION,
        pd.DataFrame({"patientId": unknown, "PredictionString": "0.5 0 0 100 100"}),
    )
    if settings.mapping:
        entries = [
            {
                "img_id": f"{exam.patient:08d}_{exam.number:03d}.png",
                "subset_img_id": exam.name,
                "orig_labels": [],
            }
            for exam in exams
        ]
        write_json(out / MAPPING, entries)
