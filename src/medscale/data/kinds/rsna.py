"""RSNA Pneumonia Detection Challenge 2018: chest X-rays as DICOM files.

Tables give labels, detailed classes and boxes; a published mapping gives patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.data.class_folders import check_classes, select_classes
from medscale.data.download import Kaggle, command_line
from medscale.data.inventory import (
    CONFLICT,
    NO_FILE,
    NO_FOLDER,
    NO_LABEL,
    NOT_LISTED,
    Excluded,
    Inventory,
    Row,
    image_row,
    make_inventory,
)
from medscale.data.kind import ALL, DatasetKind, Edition
from medscale.data.listing import Listing, list_folder, read_table
from medscale.data.settings import Datasheet, Source

DOWNLOAD = Kaggle("rsna-pneumonia-detection-challenge", competition=True)
LABELS, DETAILS = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
TRAIN, TEST = "stage_2_train_images", "stage_2_test_images"
OPACITY = "Lung Opacity"
BOX = ["x", "y", "width", "height"]
TARGETS = {"0": "normal", "1": "pneumonia"}
CLASSES = {  # by the option `classes`
    "target": ["normal", "pneumonia"],
    "detailed": ["Normal", "No Lung Opacity / Not Normal", OPACITY],
}
UNLABELLED = "unlabelled test image"  # reason in audit.csv
COMPLETE = {"normal": 20_672, "pneumonia": 6012}  # labelled images of the complete download
# A folder that lacks a larger share of its listed images is an incomplete download.
SHARE_MISSING = 0.01
EXPECTED = (
    "Expected the RSNA Pneumonia Detection Challenge 2018:\n"
    f"    {TRAIN}/*.dcm, {LABELS} and {DETAILS}\n"
    f"    {command_line(DOWNLOAD)}\n"
    "  then unzip it there, or set source.path to its folder;\n"
    f"  for the patients, put {MAPPING}, which the RSNA published, next to the tables."
)


@dataclass
class Exam:
    """The entries of one image in the tables; consistent tables have one target and one detail."""

    targets: set[str] = field(default_factory=set)  # values of the column Target
    details: set[str] = field(default_factory=set)  # detailed classes
    # x, y, width, height in pixels of each opacity
    boxes: list[list[float]] = field(default_factory=list)

    @property
    def detail(self) -> str | None:
        """The detailed class."""
        return next(iter(self.details), None)

    def fault(self, classes: str) -> tuple[str, str] | None:
        """Return reason and detail if the exam has no label; ``classes``: value of the option."""
        targets, details = sorted(self.targets), sorted(self.details)
        if len(targets) > 1 or len(details) > 1:
            detail = " and ".join(details) or "none"
            return CONFLICT, f"Target {' and '.join(targets)}, class {detail}"
        if details and (targets == ["1"]) != (details == [OPACITY]):
            return CONFLICT, f"Target {targets[0]}, but class {details[0]}"
        if classes == "detailed" and not details:
            return NO_LABEL, f"{DETAILS} does not name it"
        return None

    def label(self, classes: str) -> str:
        """Return the label of an exam without fault."""
        return TARGETS[next(iter(self.targets))] if classes == "target" else str(self.detail)


def scan(source: Source, classes: Sequence[str] | None) -> Inventory:
    """List the challenge's labelled images; the test images' labels are not published.

    The option ``classes`` is ``target`` (normal, pneumonia) or ``detailed`` (three classes). The
    metadata columns are ``detail`` (detailed class) and ``boxes``, a list of [x, y, width, height]
    in pixels of the DICOM frame, with x and y of the top left corner. Age, sex and view are in the
    files' headers. A ``patientId`` is an exam. Groups come from the published mapping to the
    patients of NIH ChestX-ray14, if the raw folder contains it.

    Raises:
        MedscaleError: when the folder is missing or incomplete, a table or the mapping is damaged,
            or the classes do not fit.
    """
    option = source.options["classes"]
    names = _check_names(option, classes)
    listing = list_folder(source.path, EXPECTED)
    exams = _exams(*_read_tables(listing))
    patients = _read_patients(listing)
    labelled = _labelled_images(listing)
    rows, left_out = _divide_images(listing, labelled, exams, option)
    missing = sorted(set(exams) - {PurePosixPath(path).stem for path in labelled})
    if not rows or len(missing) > SHARE_MISSING * len(exams):
        fault = f"{len(missing)} of the {len(exams)} images that {LABELS} lists are missing"
        raise _incomplete(listing, fault)
    folder = PurePosixPath(listing.base, TRAIN)
    left_out += [(f"{folder}/{exam}.dcm", NO_FILE, f"{LABELS} names it") for exam in missing]
    rows, other_classes = select_classes(rows, names)
    for row in rows:
        row["group"] = patients.get(PurePosixPath(row["path"]).stem)
    check_classes(listing, names, rows, EXPECTED)
    notes = _notes(rows, bool(patients), source.synthetic)
    excluded = [*listing.excluded, *left_out, *other_classes]
    origin = MAPPING if patients else None
    return make_inventory(rows, excluded, names, notes, ["detail", "boxes"], origin)


def _check_names(option: str, classes: Sequence[str] | None) -> list[str]:
    names = list(classes or CLASSES[option])
    if not set(names) <= set(CLASSES[option]) or len(set(names)) < max(2, len(names)):
        raise MedscaleError(
            f"the classes of RSNA with source.options.classes {option} are "
            f"{', '.join(CLASSES[option])} (two at least), not {', '.join(names)}"
        )
    return names


def _incomplete(listing: Listing, fault: str) -> MedscaleError:
    return listing.incomplete("RSNA challenge", EXPECTED, fault)


def _read_tables(listing: Listing) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the tables of labels and of details, and check each line.

    Labels have a column ``box``: the numbers that ``_box`` reads, empty without a box. Raises
    MedscaleError if a table is missing or a line is not valid.
    """
    labels_file, details_file = listing.take_file(LABELS), listing.take_file(DETAILS)
    if labels_file is None or details_file is None:
        files = {LABELS: labels_file, DETAILS: details_file}
        missing = [name for name, file in files.items() if file is None]
        raise _incomplete(listing, f"no {', '.join(missing)}")
    labels = read_table(labels_file, ["patientId", *BOX, "Target"])
    details = read_table(details_file, ["patientId", "class"])
    labels["Target"] = labels["Target"].str.removesuffix(".0")
    labels["box"] = [_box(cells) for cells in labels[BOX].itertuples(index=False)]
    has_box = labels["box"].map(len) > 0
    valid = labels["Target"].isin(TARGETS) & ((labels["Target"] == "1") == has_box)
    _check_lines(labels_file, labels, valid)
    _check_lines(details_file, details, details["class"].isin(CLASSES["detailed"]))
    return labels, details


def _check_lines(path: Path, table: pd.DataFrame, valid: pd.Series) -> None:
    """Raise MedscaleError for a line that is not valid or has no image; it names the first."""
    faulty_lines = table[~(valid & table["patientId"].notna())]
    if len(faulty_lines):
        cells = faulty_lines.drop(columns="box", errors="ignore").iloc[0].items()
        entry = ", ".join(f"{name} {value}" for name, value in cells)
        line = faulty_lines.index[0] + 2  # the header is line 1
        raise MedscaleError(
            f"{path}, line {line}, is not a line of the challenge's table: {entry}; download the "
            "table again"
        )


def _box(cells: Iterable[str | None]) -> tuple[float, ...]:
    """Return the box of a line as x, y, width, height; empty without a valid box."""
    try:
        box = tuple(float(str(cell)) for cell in cells)
    except ValueError:
        return ()
    return box if all(map(math.isfinite, box)) and min(box[2:]) > 0 else ()


def _exams(labels: pd.DataFrame, details: pd.DataFrame) -> dict[str, Exam]:
    """Return the labelled exams by patientId; both tables repeat an exam's line for each box."""
    exams: dict[str, Exam] = {}
    lines = labels[["patientId", "Target", "box"]].drop_duplicates()
    for name, target, box in lines.itertuples(index=False):
        exam = exams.setdefault(name, Exam())
        exam.targets.add(target)
        if box:
            exam.boxes.append(list(box))
    for name, detail in details[["patientId", "class"]].drop_duplicates().itertuples(index=False):
        if name in exams:
            exams[name].details.add(detail)
    return exams


def _labelled_images(listing: Listing) -> set[str]:
    """Return the DICOM files below the folder of the labelled images (some archives nest it)."""
    return {
        path
        for path in listing.images
        if TRAIN in PurePosixPath(path).parts and PurePosixPath(path).suffix.lower() == ".dcm"
    }


def _divide_images(
    listing: Listing, labelled: set[str], exams: dict[str, Exam], option: str
) -> tuple[list[Row], list[Excluded]]:
    """Return rows of the images with a label, and the other images with the reason."""
    rows: list[Row] = []
    left_out: list[Excluded] = []
    for path in listing.images:
        exam = exams.get(PurePosixPath(path).stem)
        if TEST in PurePosixPath(path).parts:
            left_out.append((path, UNLABELLED, "the challenge did not publish its label"))
        elif path not in labelled:
            left_out.append((path, NO_FOLDER, f"not a .dcm file in {TRAIN}"))
        elif exam is None:
            left_out.append((path, NOT_LISTED, f"{LABELS} does not name it"))
        elif fault := exam.fault(option):
            left_out.append((path, *fault))
        else:
            label = exam.label(option)
            rows.append(image_row(path, label, "RSNA", detail=exam.detail, boxes=exam.boxes))
    return rows, left_out


def _read_patients(listing: Listing) -> dict[str, str]:
    """Return the patient of each exam by the published mapping; empty without the mapping.

    Its ``img_id`` is a file name of NIH ChestX-ray14, which begins with the patient's number.
    """
    path = listing.take_file(MAPPING)
    if path is None:
        return {}
    try:
        pairs = {str(entry["subset_img_id"]): str(entry["img_id"]) for entry in read_json(path)}
    except (TypeError, KeyError):
        raise MedscaleError(
            f"{path} is not the RSNA's mapping: a list of entries with subset_img_id, img_id"
        ) from None
    return {exam: f"NIH:{image.split('_')[0]}" for exam, image in pairs.items() if "_" in image}


def _notes(rows: list[Row], has_mapping: bool, synthetic: bool) -> list[str]:
    notes = []
    complete = sum(COMPLETE.values())
    if len(rows) < complete and not synthetic:
        notes.append(
            f"{len(rows)} labelled images are present of the {complete} of the complete challenge."
        )
    unknown = sum(row["group"] is None for row in rows)
    if not has_mapping:
        notes.append(
            "A patientId of the challenge is an exam, and the list of the exams' patients, "
            f"{MAPPING}, is missing."
        )
    elif unknown:
        notes.append(f"{unknown} images are not in {MAPPING}; each counts as a separate patient.")
    return notes


KIND = DatasetKind(
    scan=scan,
    download=DOWNLOAD,
    editions=(
        Edition(
            "RSNA Pneumonia Detection Challenge 2018",
            {(ALL, label): count for label, count in COMPLETE.items()},
            files={LABELS: "labels and boxes", DETAILS: "detailed classes"},
        ),
    ),
    options={"classes": ("target", "detailed")},
    demo="xray",
    paper=(
        r"that of the RSNA Pneumonia Detection Challenge 2018 \cite{shih2019rsna}: frontal chest "
        r"X-rays of the NIH collection \cite{wang2017chestxray} with boxes that radiologists drew "
        "around opacities. An image with a box is of the class pneumonia."
    ),
    datasheet=Datasheet(
        name="RSNA Pneumonia Detection Challenge 2018",
        origin="Frontal chest X-rays of the NIH collection ChestX-ray, with boxes drawn for the "
        "challenge",
        creators="Radiological Society of North America and Society of Thoracic Radiology (boxes), "
        "NIH Clinical Center (images)",
        citation="Shih et al. (2019), Radiology: Artificial Intelligence 1(1), "
        "doi:10.1148/ryai.2019180041; images: Wang et al. (2017), ChestX-ray8, CVPR, "
        "doi:10.1109/CVPR.2017.369",
        purpose="A challenge in finding opacities that can mean pneumonia",
        instances="DICOM images of 1024x1024 pixels with age, sex and view in their headers",
        labels="Boxes by radiologists; an image with a box is called pneumonia here, though an "
        "opacity is not a diagnosis",
        licence="The challenge's rules, accepted at download; the NIH's images may be used freely "
        "with attribution",
        known_problems=[
            "The column patientId names an exam, not a patient; patients are known only with the "
            "published mapping",
            "A few ages in the headers are implausible",
            "The test images of the challenge carry no labels, so that the study divides its "
            "training images",
        ],
    ),
)
