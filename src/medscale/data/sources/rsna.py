"""RSNA Pneumonia Detection Challenge 2018: chest X-rays as DICOM with labels, detailed classes, boxes and patients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config.sections import Source
from medscale.data.download import command
from medscale.data.sources import found as f
from medscale.data.sources.folder import of_classes
from medscale.data.sources.found import Excluded, Found, Listing, found, list_folder, read_table

LABELS, DETAILS = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
TRAIN, TEST = "stage_2_train_images", "stage_2_test_images"
OPACITY = "Lung Opacity"
BOX = ["x", "y", "width", "height"]
TARGETS = {"0": "normal", "1": "pneumonia"}
CLASSES = {
    "target": ["normal", "pneumonia"],
    "detailed": ["Normal", "No Lung Opacity / Not Normal", OPACITY],
}
UNLABELLED = "unlabelled test image"
COMPLETE = 26_684  # labelled images of the complete download
SHARE_MISSING = (
    0.01  # a folder that lacks a larger share of its listed images is an incomplete download
)
EXPECTED = (
    "Expected the RSNA Pneumonia Detection Challenge 2018:\n"
    f"    {TRAIN}/*.dcm, {LABELS} and {DETAILS}\n"
    f"    {command('rsna')}\n"
    "  then unzip it there, or set source.path to where it is;\n"
    f"  to know the patients put {MAPPING}, which the RSNA published, beside them."
)


@dataclass
class Exam:
    """What the tables say of one image: Targets and classes named for it (one each where all is well), its boxes."""

    targets: set[str] = field(default_factory=set)
    details: set[str] = field(default_factory=set)
    boxes: list[list[float]] = field(default_factory=list)

    @property
    def detail(self) -> str | None:
        """The detailed class."""
        return next(iter(self.details), None)

    def fault(self, kind: str) -> tuple[str, str] | None:
        """Why the exam has no label of a ``kind`` of classes."""
        targets, details = sorted(self.targets), sorted(self.details)
        if len(targets) > 1 or len(details) > 1:
            return (
                f.CONFLICT,
                f"Target {' and '.join(targets)}, class {' and '.join(details) or 'none'}",
            )
        if details and (targets == ["1"]) != (details == [OPACITY]):
            return f.CONFLICT, f"Target {targets[0]}, but class {details[0]}"
        if kind == "detailed" and not details:
            return f.NO_LABEL, f"{DETAILS} does not name it"
        return None

    def label(self, kind: str) -> str:
        """The label of an exam without fault."""
        return TARGETS[next(iter(self.targets))] if kind == "target" else str(self.detail)


def scan(source: Source, classes: Sequence[str] | None) -> Found:
    """List the challenge's labelled images; test images, whose labels are not published, are left out by name.

    ``source.options.classes`` says which classes: ``target`` (default: normal, pneumonia) or ``detailed`` (three).
    Metadata columns: ``detail`` (detailed class) and ``boxes``, a list of [x, y, width, height] in pixels of the
    DICOM frame, x and y the top-left corner; age, sex and view are in the files' headers. A ``patientId`` is an exam:
    groups come from the published mapping to the patients of NIH ChestX-ray14, where it is there.

    Raises:
        MedscaleError: when the folder is missing or incomplete (what was expected, what was found, the download), a
            table or the mapping is broken, or the classes do not fit.
    """
    kind = _kind(source)
    names = _classes(kind, classes)
    listing = list_folder(source.path, EXPECTED)
    root = Path(str(source.path))
    exams = _exams(*_tables(root, listing))
    patients = _patients(root, listing)
    rows, left_out = _images(listing, exams, kind)
    missing = sorted(set(exams) - {PurePosixPath(path).stem for path in _labelled(listing)})
    if not rows or len(missing) > SHARE_MISSING * len(exams):
        what = f"{len(missing)} of the {len(exams)} images that {LABELS} lists are missing"
        raise _incomplete(root, f"{what}; {listing.summary()}")
    folder = PurePosixPath(listing.base, TRAIN)
    left_out += [(f"{folder}/{exam}.dcm", f.NO_FILE, f"{LABELS} names it") for exam in missing]
    rows, others = of_classes(rows, names)
    for row in rows:
        row["group"] = patients.get(PurePosixPath(row["path"]).stem)
    if empty := [name for name in names if name not in {row["label"] for row in rows}]:
        raise MedscaleError(
            f"{root}: no images of class {', '.join(map(repr, empty))} ({listing.summary()})"
        )
    notes = _notes(rows, bool(patients), source.synthetic)
    return found(rows, [*listing.excluded, *left_out, *others], names, notes, ["detail", "boxes"])


def _kind(source: Source) -> str:
    """Which classes are wanted; a synthetic source's other options are its generator's."""
    others = sorted(set(source.options) - {"classes"})
    kind = source.options.get("classes", "target")
    if (others and not source.synthetic) or kind not in CLASSES:
        wrong = ", ".join(others) or f"classes: {kind}"
        raise MedscaleError(
            f"source kind rsna has the option classes: target | detailed; found: {wrong}"
        )
    return str(kind)


def _classes(kind: str, classes: Sequence[str] | None) -> list[str]:
    names = list(classes or CLASSES[kind])
    if not set(names) <= set(CLASSES[kind]) or len(set(names)) < max(2, len(names)):
        raise MedscaleError(
            f"the classes of RSNA with source.options.classes {kind} are {', '.join(CLASSES[kind])} (two at least), "
            f"not {', '.join(names)}"
        )
    return names


def _incomplete(root: Path, what: str) -> MedscaleError:
    return MedscaleError(f"{root} holds no complete RSNA challenge.\n  {EXPECTED}\n  Found: {what}")


def _beside(root: Path, listing: Listing, name: str) -> Path | None:
    """A file of the raw folder, or of the one that the archive has put into it."""
    return next(
        (place for place in (root / name, root / listing.base / name) if place.is_file()), None
    )


def _tables(root: Path, listing: Listing) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables, each line checked; labels get a column ``box``, see ``_box``."""
    places = [_beside(root, listing, name) for name in (LABELS, DETAILS)]
    if missing := [
        name for name, place in zip((LABELS, DETAILS), places, strict=True) if place is None
    ]:
        raise _incomplete(root, f"no {', '.join(missing)}; {listing.summary()}")
    labels_at, details_at = map(Path, map(str, places))
    labels = read_table(labels_at, ["patientId", *BOX, "Target"])
    details = read_table(details_at, ["patientId", "class"])
    labels["Target"] = labels["Target"].str.removesuffix(".0")
    labels["box"] = [_box(cells) for cells in labels[BOX].itertuples(index=False)]
    fits = labels["Target"].isin(TARGETS) & (
        (labels["Target"] == "1") == (labels["box"].map(len) > 0)
    )
    _check_lines(labels_at, labels, fits)
    _check_lines(details_at, details, details["class"].isin(CLASSES["detailed"]))
    return labels, details


def _check_lines(path: Path, table: pd.DataFrame, fits: pd.Series) -> None:
    """Raise MedscaleError, naming the first line that does not fit or names no image."""
    wrong = table[~(fits & table["patientId"].notna())]
    if len(wrong):
        entry = ", ".join(
            f"{name} {value}" for name, value in wrong.iloc[0].items() if name != "box"
        )
        raise MedscaleError(
            f"{path}, line {wrong.index[0] + 2}, is no line of the challenge's table: {entry}"
        )


def _box(cells: Iterable[str | None]) -> tuple[float, ...]:
    """The box of a line as x, y, width, height; empty where there is none or it is no box."""
    try:
        box = tuple(float(str(cell)) for cell in cells)
    except ValueError:
        return ()
    return box if all(map(math.isfinite, box)) and min(box[2:]) > 0 else ()


def _exams(labels: pd.DataFrame, details: pd.DataFrame) -> dict[str, Exam]:
    """The labelled exams by patientId; both tables repeat an exam's line for each of its boxes."""
    exams: dict[str, Exam] = {}
    for exam, target, box in (
        labels[["patientId", "Target", "box"]].drop_duplicates().itertuples(index=False)
    ):
        entry = exams.setdefault(exam, Exam())
        entry.targets.add(target)
        if box:
            entry.boxes.append(list(box))
    for exam, detail in details[["patientId", "class"]].drop_duplicates().itertuples(index=False):
        if exam in exams:
            exams[exam].details.add(detail)
    return exams


def _labelled(listing: Listing) -> list[str]:
    """DICOM files in the folder of the labelled images, which some archives have doubled."""
    return [
        p
        for p in listing.images
        if TRAIN in PurePosixPath(p).parts and PurePosixPath(p).suffix.lower() == ".dcm"
    ]


def _images(
    listing: Listing, exams: dict[str, Exam], kind: str
) -> tuple[list[dict[str, Any]], list[Excluded]]:
    """Rows of the images that have a label, and the other images with the reason."""
    rows: list[dict[str, Any]] = []
    left_out: list[Excluded] = []
    labelled = set(_labelled(listing))
    for path in listing.images:
        exam = exams.get(PurePosixPath(path).stem)
        if TEST in PurePosixPath(path).parts:
            left_out.append((path, UNLABELLED, "the challenge did not publish its label"))
        elif path not in labelled:
            left_out.append((path, f.NO_FOLDER, f"not a .dcm file in {TRAIN}"))
        elif exam is None:
            left_out.append((path, f.NOT_LISTED, f"{LABELS} does not name it"))
        elif fault := exam.fault(kind):
            left_out.append((path, *fault))
        else:
            row = {
                "path": path,
                "label": exam.label(kind),
                "split_published": None,
                "group": None,
                "source": "RSNA",
            }
            rows.append({**row, "detail": exam.detail, "boxes": exam.boxes})
    return rows, left_out


def _patients(root: Path, listing: Listing) -> dict[str, str]:
    """The patient of each exam by the published mapping, whose ``img_id`` is a file name of NIH ChestX-ray14."""
    path = _beside(root, listing, MAPPING)
    if path is None:
        return {}
    try:
        pairs = {str(entry["subset_img_id"]): str(entry["img_id"]) for entry in read_json(path)}
    except (TypeError, KeyError):
        raise MedscaleError(
            f"{path} is not the RSNA's mapping: a list of entries with subset_img_id, img_id"
        ) from None
    return {exam: f"NIH:{image.split('_')[0]}" for exam, image in pairs.items() if "_" in image}


def _notes(rows: list[dict[str, Any]], mapped: bool, synthetic: bool) -> list[str]:
    notes = []
    if len(rows) < COMPLETE and not synthetic:
        notes.append(
            f"{len(rows)} labelled images are there of the {COMPLETE} of the complete challenge."
        )
    unknown = sum(row["group"] is None for row in rows)
    if not mapped:
        notes.append(
            f"The patients are not known, since a patientId of the challenge is an exam and {MAPPING} is not there: "
            "images of one patient can stand in different splits."
        )
    elif unknown:
        notes.append(
            f"{unknown} images are not in {MAPPING}: each is taken as a patient of its own."
        )
    return notes
