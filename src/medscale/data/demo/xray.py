"""Synthetic chest X-rays in the layout of the RSNA challenge: DICOM files, tables, mapping."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from pydantic import Field

from medscale.data.demo import common
from medscale.data.demo.chest import Anatomy, Opacity, radiograph
from medscale.data.kinds.rsna import BOX, CLASSES, DETAILS, LABELS, MAPPING, TEST, TRAIN

SUBMISSION = "stage_2_sample_submission.csv"
NORMAL, NOT_NORMAL, OPACITY = CLASSES["detailed"]
# Shares of the detailed classes: more opacities than in the real dataset, as a small one needs
# enough of them.
SHARES = {NORMAL: 0.3, NOT_NORMAL: 0.3, OPACITY: 0.4}
AP = {NORMAL: 0.25, NOT_NORMAL: 0.45, OPACITY: 0.65}  # share of AP views
AGES = {NORMAL: 43, NOT_NORMAL: 48, OPACITY: 51}  # means in years; the standard deviation is 16
PER_PATIENT = 2  # exams a patient, on average
IMPLAUSIBLE_AGE = 148
STORAGE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage, as in the real dataset
QUALITY = 92  # of JPEG


class Options(common.Options):
    """Options of the synthetic chest X-rays."""

    exams: int = Field(400, ge=40, le=100_000, description="labelled images")
    size: int = Field(256, ge=64, le=4096, description="pixels a side; the real dataset has 1024")
    tests: int = Field(6, ge=0, description="images without a label")
    mapping: bool = Field(True, description="write the file that gives the patient of each exam")
    classes: Literal["target", "detailed"] = Field(
        "target", description="the classes that the dataset kind takes"
    )

    @property
    def images(self) -> int:
        """Labelled images, of which one is truncated, and test images."""
        return self.exams + self.tests

    @property
    def labels(self) -> list[str]:
        """The classes of the dataset, by the option ``classes``."""
        return list(CLASSES[self.classes])


@dataclass(frozen=True)
class Exam:
    """The plan of one image, and its entries in tables and headers."""

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
    def paths(self) -> tuple[str]:
        """Path of its file, relative to the raw folder."""
        return (f"{self.folder}/{self.name}.dcm",)


def generate(settings: Options, out: Path) -> None:
    """Write the dataset to ``out`` with the tables and faults of the real download.

    Pneumonia is one to three soft opacities whose boxes the labels give. Their contrast varies down
    to what noise and ribs hide, so that no classifier can be right on all images; images that are
    neither normal nor have an opacity show a large heart, a line or a nodule. AP views are more
    frequent with pneumonia, and patients are a little older. The tables repeat an exam's line for
    each box; ages have no unit; one age is implausible; the last labelled file is truncated. Raises
    MedscaleError if ``out`` holds files that no generator has written.
    """
    exams = plan(settings)
    last = next(exam for exam in reversed(exams) if exam.folder == TRAIN).paths[0]
    common.write_dataset(
        "rsna",
        settings,
        out,
        exams,
        _write,
        faulty={last: common.TRUNCATED},
        whole=last,
        tables=_tables(settings, exams),
    )


def plan(settings: Options) -> list[Exam]:
    """Return the plan of every exam; exams without a label come last."""
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
    """Plan one exam; lasting features come from the patient's random numbers."""
    person = np.random.default_rng([settings.seed, 1, patient])
    rng = np.random.default_rng([settings.seed, 2, number])
    sex = "M" if person.random() < 0.57 else "F"
    view = "AP" if rng.random() < AP[detail] else "PA"
    anatomy = Anatomy.draw(person, rng, view == "AP")
    finding = rng.choice(["heart", "line", "nodule"]) if detail == NOT_NORMAL else None
    if finding == "heart":
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
        line=finding == "line",
        nodule=finding == "nodule",
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
    (out / exam.paths[0]).write_bytes(_dicom(exam, pixels))


def _dicom(exam: Exam, pixels: np.ndarray) -> bytes:
    """Return the exam's file in the challenge's form: JPEG Baseline, 8 bit, age without unit."""
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
    stream = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return dicom_file(headers, [stream], JPEGBaseline8Bit)


def dicom_file(
    headers: Mapping[str, Any], pixels: bytes | list[bytes] | None, syntax: str
) -> bytes:
    """Return a DICOM file (PS3.10) of the class that the challenge's files have.

    Args:
        headers: values by keyword; they are not validated, so that tests can write wrong ones.
        pixels: bytes of the pixels, or one compressed stream per frame for a compressed syntax;
            None for a file without pixels.
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
        vr = dictionary_VR(Tag(name))
        dataset.add(DataElement(name, vr, value, validation_mode=config.IGNORE))
    if pixels is not None:
        raw = isinstance(pixels, bytes)
        vr = "OW" if raw and headers["BitsAllocated"] > 8 else "OB"
        value = pixels if isinstance(pixels, bytes) else encapsulate(pixels)
        dataset.add(DataElement("PixelData", vr, value))
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _tables(settings: Options, exams: list[Exam]) -> dict[str, str]:
    """Return the text of labels, detailed classes, sample submission and mapping, by path.

    Labels and detailed classes have a line for each box, and one for an exam without boxes.
    """
    labels, details = list[dict[str, Any]](), list[dict[str, Any]]()
    for exam in (exam for exam in exams if exam.folder == TRAIN):
        target = {"patientId": exam.name, "Target": int(exam.detail == OPACITY)}
        boxes = [opacity.box(settings.size) for opacity in exam.opacities]
        lines = [dict(zip(BOX, box, strict=True)) for box in boxes] or [{}]
        labels += [target | line for line in lines]
        details += [{"patientId": exam.name, "class": exam.detail}] * len(lines)
    tests = [exam.name for exam in exams if exam.folder == TEST]
    tables = {
        LABELS: pd.DataFrame(labels, columns=["patientId", *BOX, "Target"]),
        DETAILS: pd.DataFrame(details),
        SUBMISSION: pd.DataFrame({"patientId": tests, "PredictionString": "0.5 0 0 100 100"}),
    }
    texts = {name: table.to_csv(index=False) for name, table in tables.items()}
    if settings.mapping:
        entries = [
            {
                "img_id": f"{exam.patient:08d}_{exam.number:03d}.png",
                "subset_img_id": exam.name,
                "orig_labels": [],
            }
            for exam in exams
        ]
        texts[MAPPING] = json.dumps(entries, indent=2, sort_keys=True) + "\n"
    return texts
