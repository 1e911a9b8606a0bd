"""The inventory of a raw folder: images with labels, and files that are left out with reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from medscale.data import patients

# Columns of Inventory.rows; any further column is the dataset's own metadata.
COLUMNS = ("path", "label", "split_published", "group", "source")
SPLIT_OF_FOLDER = {  # the package's name of each split by the name of its folder
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# Names of splits as folders and tables of public datasets write them, such as ``test_set``.
SPLIT_NAME = re.compile(
    rf"({'|'.join(SPLIT_OF_FOLDER)})(?:[ _-]?(?:set|data|images|imgs|split))?", re.IGNORECASE
)

# Reasons in audit.csv for which a file is left out before any image is opened.
NO_IMAGE_NAME = "not an image by its name"
READ = "table that is read"
NOT_A_FILE = "not a regular file"
BAD_NAME = "name is not UTF-8"
HIDDEN = "hidden file or folder"
UNREAD_FORMAT = "image format that is not read"
NO_FOLDER = "outside the class folders"
MASK = "mask by its name"
NOT_LISTED = "not listed"
NO_FILE = "listed but missing"
NO_LABEL = "no label"
OTHER_CLASS = "class not in the study"
CONFLICT = "conflicting label"
CONTRADICTION = "contradicting entries"

# Endings of names that only DICOM files have, besides numbers and none at all.
DICOM_ENDINGS = ("", ".", ".dcm", ".dicom", ".ima")

Row = dict[str, Any]
Excluded = tuple[str, str, str]  # path, reason, detail


@dataclass(frozen=True)
class Inventory:
    """The contents of a raw folder by its file names and tables; no image has been opened."""

    # one row for each image: ``path`` (relative to the raw folder, with /), ``label``,
    # ``split_published`` (train, val, test or None), ``group`` (images that must share a split,
    # mostly those of a patient, or None), ``source`` (name of the source set), and metadata columns
    rows: pd.DataFrame
    # ``path, reason, detail`` of each file that is left out, and of each table entry whose file is
    # missing
    excluded: pd.DataFrame
    classes: list[str]  # class names in the study's order
    notes: list[str] = field(default_factory=list)  # sentences for the reader of the paper
    # origin of the names of patients in ``group``, such as ``column patient of index.csv``; None if
    # groups are not patients, but lesions or copies of an image
    patients: str | None = None
    # PatientID in the headers of DICOM files names the patients if no column or expression does
    reads_headers: bool = False
    # notes that apply only if the patients are not known
    patient_notes: list[str] = field(default_factory=list)

    @property
    def patient_names(self) -> pd.Series:
        """The patient of each row; None if it is not known."""
        groups = self.rows["group"]
        return groups if self.patients is not None else pd.Series(None, groups.index, dtype=object)

    def patient_sentences(self) -> tuple[bool, list[str]]:
        """Return whether the patients are known before an image is read, and sentences on them."""
        counts = patients.summary(self.patient_names, self.patients)
        text = patients.sentence(counts)
        if counts["state"] == patients.KNOWN:
            return True, [f"{text} From: {counts['from']}"]
        dicom = self.rows["path"].map(is_dicom)
        if self.patients is None and self.reads_headers and dicom.any():
            headers = (
                "The patients are read from PatientID in the headers of the DICOM files when the "
                "index is made; where it is missing or a placeholder, they are not known."
            )
            if not dicom.all():
                headers += (
                    f" Images of other formats, whose patients are not known: {(~dicom).sum()}."
                )
            return False, [headers, *([] if dicom.all() else self.patient_notes)]
        return False, [text, *self.patient_notes]


def split_of(name: str) -> str | None:
    """Return the split that the name of a folder or a cell of a table means; None for others."""
    match = SPLIT_NAME.fullmatch(name.strip())
    return SPLIT_OF_FOLDER[match[1].lower()] if match else None


def is_dicom(path: str) -> bool:
    """Return whether a listed image is a DICOM file by its name."""
    ending = PurePosixPath(path).suffix.lower()
    return ending in DICOM_ENDINGS or ending[1:].isdigit()


def image_row(
    path: str,
    label: str | None,
    source: str,
    split: str | None = None,
    group: str | None = None,
    **metadata: Any,
) -> Row:
    """Return an image's row of the inventory."""
    row = dict(zip(COLUMNS, (path, label, split, group, source), strict=True))
    return row | metadata


def make_inventory(
    rows: list[Row],
    excluded: Iterable[Excluded],
    classes: list[str],
    notes: list[str],
    metadata: Iterable[str] = (),
    patients: str | None = None,
    **more: Any,
) -> Inventory:
    """Return the inventory, ordered by path; its columns exist even without rows.

    Args:
        rows: results of ``image_row``.
        excluded: path, reason and detail of each file that is left out.
        classes: class names in the study's order.
        notes: sentences for readers of the paper.
        metadata: names of the metadata columns.
        patients: origin of the names of patients, see ``Inventory.patients``.
        more: further fields of the inventory.
    """
    table = pd.DataFrame(rows, columns=[*COLUMNS, *metadata]).sort_values("path", ignore_index=True)
    for column in COLUMNS:
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    left_out = pd.DataFrame(list(excluded), columns=["path", "reason", "detail"])
    left_out = left_out.sort_values("path", ignore_index=True)
    return Inventory(table, left_out, classes, notes, patients, **more)
