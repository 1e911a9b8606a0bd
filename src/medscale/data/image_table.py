"""The table of a person's own images: a CSV file with a line for each image.

It gives labels, patients, splits and metadata. Its name is ``index.csv``, or ``source.table``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home
from medscale.base.suggest import suggestion
from medscale.data import class_columns, folds, patients
from medscale.data.image_names import ImageNames
from medscale.data.inventory import (
    CONFLICT,
    CONTRADICTION,
    NO_FILE,
    NO_LABEL,
    NOT_LISTED,
    Excluded,
    Row,
    image_row,
    split_of,
)
from medscale.data.listing import Listing, normalized_path, read_table, separator_of
from medscale.data.masks import without_masks
from medscale.data.metadata import numbers
from medscale.data.settings import Source
from medscale.data.spelling import without_zero_decimals

INDEX = "index.csv"
RESERVED = ("id", "split_published", "group", "width", "height", "sha256", "alike", "boxes")
MEANINGS = ("path", "label", "patient", "split", "source")  # columns that are not metadata


@dataclass(frozen=True)
class ImageTable:
    """A table of images. Its columns path and label have these names."""

    file: Path  # its path
    entries: pd.DataFrame  # its lines as text; a missing value is None
    metadata: list[str]  # names of its columns of metadata
    patient: str | None  # its column that names patients, or parts of patients; None without one
    is_patient_set: bool  # whether ``source.patient`` names that column
    remarks: list[str]  # notes on patients whose names are written in several ways
    decimal_comma: bool  # whether commas in its numbers are decimal commas

    @property
    def name(self) -> str:
        """The table's file name, for messages."""
        return self.file.name

    def labels(self) -> set[str]:
        """Return the labels of its entries; none without a column of labels."""
        return {*self.entries["label"].dropna()} if "label" in self.entries else set()

    def notes(self) -> list[str]:
        """Return notes on columns that are not read, or read in a way that is not obvious."""
        notes = [f"{self.name}: {remark}." for remark in self.remarks]
        if ignored := [name for name in self.entries.columns if _is_computed(name)]:
            notes.append(f"{self.name}: the columns {', '.join(ignored)} are not read")
        if self.patient is None or self.patient == patients.PATIENT:
            return notes  # a column called "patient" needs no note
        if patients.names_part(self.patient):
            notes.append(
                f"{self.name}: images of the same {self.patient} are kept together; this column "
                "does not name patients, and images of one patient can have several."
            )
        elif not self.is_patient_set:
            notes.append(f"{self.name}: the column {self.patient} is read as the patient.")
        return notes


def read_image_table(
    listing: Listing, source: Source, classes: Sequence[str] | None = None
) -> tuple[ImageTable | None, list[str]]:
    """Read the table that ``source.table`` names, or index.csv if there is one.

    The columns path, label, split and source may be written in capitals. ``source.image``,
    ``source.label`` and ``source.patient`` name other columns. A label such as NA is a missing
    value unless it is one of the study's ``classes``, or of ``source.labels``. Raises MedscaleError
    if the table is missing, is not a CSV file, or lacks a column.

    Returns:
        The table, None without one, and the names of all columns of the file.
    """
    file = _table_file(listing, source.table)
    if file is None:
        if source.image is not None:
            raise MedscaleError(
                f"source.image names a column of a table, but {listing.root} has no {INDEX}; set "
                "source.table"
            )
        return None, []
    entries = read_table(file, [])
    columns = [str(name) for name in entries.columns]
    entries = _with_meanings(file, entries, source)
    names = [str(name) for name in entries.columns]
    column = source.patient if source.patient in names else None
    if source.patient is None:
        column = patients.patient_column(names, file.name)
    metadata = [name for name in names if name not in MEANINGS and not _is_computed(name)]
    for name in (*metadata, "split", "source"):
        if name in entries:
            missing = entries[name].map(patients.is_missing)
            entries[name] = entries[name].where(~missing, None)
    if "label" in entries:
        entries["label"] = _labels(entries["label"], [*(classes or ()), *source.labels])
    remarks = list[str]()
    if column is not None:
        no_name = entries[column].map(lambda text: patients.is_missing(text, name=True))
        names_of_patients = entries[column].where(~no_name, None)
        unified, remarks = patients.unified(names_of_patients.tolist())
        entries[column] = pd.Series(unified, entries.index, dtype=object)
    decimal_comma = separator_of(file) != ","
    is_patient_set = source.patient is not None
    table = ImageTable(file, entries, metadata, column, is_patient_set, remarks, decimal_comma)
    return table, columns


def _labels(column: pd.Series, classes: Sequence[str]) -> pd.Series:
    """Return classes without zero decimals, None for a missing one.

    A class may be called "none", or as one of ``classes`` is, in small letters or capitals; both
    are missing values elsewhere.
    """
    class_names = {"none", *(name.casefold() for name in classes)}
    is_class = column.map(lambda text: str(text).casefold() in class_names) & column.notna()
    labels = without_zero_decimals(column.where(is_class | ~column.map(patients.is_missing), None))
    return pd.Series(labels, column.index, dtype=object)


def _is_computed(column: str) -> bool:
    """Return whether the package computes a column of the index, so that no table can give it."""
    return column in RESERVED or folds.is_split(column)


def _table_file(listing: Listing, name: str | None) -> Path | None:
    """Return the path of the table; None without one."""
    if name is None:
        return listing.take_file(INDEX)
    if (file := listing.take_file(str(expand_home(name)))) is None:
        tables = [path for path, _, _ in listing.excluded if path.lower().endswith(".csv")]
        raise MedscaleError(
            f"source.table: {listing.root} has no file {name}; {suggestion(name, tables)}its CSV "
            f"files: {', '.join(tables[:6]) or 'none'}"
        )
    return file


def _with_meanings(file: Path, entries: pd.DataFrame, source: Source) -> pd.DataFrame:
    """Return a table whose columns of image and label are called path and label.

    A column path or label in whose place the settings name another, or an expression, is dropped.
    """
    columns_by_name = {name.lower(): name for name in reversed(entries.columns)}
    renamed = {
        columns_by_name[name]: name
        for name in MEANINGS
        if name in columns_by_name and name not in entries and name != patients.PATIENT
    }
    entries = entries.rename(columns=renamed)
    label = source.label
    if isinstance(label, list):
        names = class_columns.labels(file, entries, label)
        entries, label = entries.drop(columns=label).assign(label=names), None
    for meaning, column in (("path", source.image), ("label", label)):
        column = renamed.get(str(column), column)
        if column is None or column == meaning:
            continue
        if meaning == "path" and column not in entries:
            raise MedscaleError(
                f"{file}: no column {column} (source.image); it has: {', '.join(entries.columns)}"
            )
        image_names = entries.get(column)
        entries = entries.drop(columns=meaning, errors="ignore").rename(columns={column: meaning})
        if meaning == "path" and image_names is not None and patients.is_person(column):
            entries[column] = image_names  # the images are named by their patients
    if "path" not in entries:
        raise MedscaleError(
            f"{file}: no column path; it has: {', '.join(entries.columns)}; name the column of the "
            f"images by source.image{class_columns.remedy(entries)}"
        )
    return entries


def rows_by_table(
    table: ImageTable, listing: Listing, by_folder: dict[str, Row]
) -> tuple[list[Row], list[Excluded], list[str]]:
    """Return rows, left-out files and entries, and notes, according to a table.

    An entry names an image by its path (see ``ImageNames.images``), or by its file name where only
    one image has it, with or without the ending. If no entry names an image, entries name
    folders, such as those of patients: they are of all images in them. An image may have several
    entries: values that one of them lacks are those of the others. If label, patient or split
    differ, the image is left out; metadata that differ are missing, and a note says so. Raises
    MedscaleError if no entry names an image or a folder, an entry names several, or a split has
    another name.
    """
    names = ImageNames(listing, table.file)
    other_files = {normalized_path(path) for path, _, _ in listing.excluded}
    entries = [_entry(entry, table.file) for entry in table.entries.to_dict("records")]
    labels = {entry["label"] for entry in entries if entry.get("label")}
    by_image: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, Excluded] = {}
    paths = names.images([entry["path"] or "" for entry in entries])
    for entry, images in zip(entries, paths, strict=True):
        for path in images:
            by_image.setdefault(path, []).append(entry)
        if not images and (name := names.full(entry["path"] or "")) not in other_files:
            detail = f"{table.name} names it, but there is no such image file"
            left_out[name] = (name, NO_FILE, detail)
    if not by_image:
        raise _no_image_named(table, listing)
    same_patient = _same_patient(by_image, table.patient)
    rows: list[Row] = []
    unclear: dict[str, list[str]] = {}  # images by the column whose values differ
    # An image without a label has that of its folder only where folders have names of classes.
    are_classes = not labels or any(row["label"] in labels for row in by_folder.values())
    for path, lines in by_image.items():
        merged, differing = _merge(lines)
        for name in table.metadata:
            if name in differing:
                unclear.setdefault(name, []).append(path)
        row = _row(path, merged, by_folder.get(path), table, are_classes)
        row["group"] = same_patient.get(row["group"], row["group"])
        if fault := _fault(row, differing, by_folder.get(path), labels, table):
            left_out[path] = (path, *fault)
        else:
            rows.append(row)
    unlisted = [path for path in listing.images if path not in by_image]
    left_out |= {path: (path, NOT_LISTED, f"{table.name} does not name it") for path in unlisted}
    masks = list[Excluded]()
    if any(len(images) > 1 for images in paths):  # of folders, which may hold masks
        rows, masks = without_masks(rows)
    return rows, [*left_out.values(), *masks], _notes_on_differences(table, unclear)


def _notes_on_differences(table: ImageTable, unclear: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a note on each column of metadata of which entries of one image differ.

    ``unclear``: paths of these images by column.
    """
    return [
        f"{table.name}: of {len(images)} images, such as {images[0]}, several entries with another "
        f"{name} are given; it is taken as not known."
        for name, images in unclear.items()
    ]


def _entry(entry: Mapping[Hashable, Any], file: Path) -> dict[str, Any]:
    """Return an entry with label and split in the package's form."""
    label, split = entry.get("label"), entry.get("split")
    if split is not None and split_of(split) is None:
        raise MedscaleError(
            f"{file}: {entry['path']}: split {split!r} is not one of train, val, test"
        )
    values = {str(name): value for name, value in entry.items()}
    if label is not None:
        values["label"] = normalize("NFC", label)
    return values if split is None else values | {"split": split_of(split)}


def _no_image_named(table: ImageTable, listing: Listing) -> MedscaleError:
    """Return the error for a table whose paths lead nowhere."""
    paths = table.entries["path"].dropna()
    if paths.empty:
        return MedscaleError(f"{table.file}: the column path is empty")
    if not listing.images:
        return MedscaleError(
            f"{table.file} names {paths.nunique()} images, but {listing.root} has none (found: "
            f"{listing.summary()})"
        )
    below = [
        path for path in listing.images if (listing.root / path).is_relative_to(table.file.parent)
    ]
    example = listing.root / (below or listing.images)[0]
    example_path = example.relative_to(table.file.parent) if below else example
    return MedscaleError(
        f"{table.file} names {paths.nunique()} images, none of which is there (first: "
        f"{paths.iloc[0]}); paths are relative to the folder of {table.name}, such as "
        f"{example_path.as_posix()}"
    )


def _merge(entries: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the entry that several entries of an image make, and the values that differ."""
    differing: dict[str, list[str]] = {}
    merged: dict[str, Any] = {"path": entries[0]["path"]}
    for name in entries[0].keys() - {"path"}:
        values = list(dict.fromkeys(entry[name] for entry in entries if entry[name] is not None))
        merged[name] = values[0] if len(values) == 1 else None
        if len(values) > 1:
            differing[name] = values
    return merged, differing


def _same_patient(
    by_image: Mapping[str, Sequence[dict[str, Any]]], column: str | None
) -> dict[str, str]:
    """Return the name that stands for each patient who shares an image with another.

    Two names of one image are taken as one patient, so that other images of both stay together.
    """
    same: dict[str, str] = {}

    def first(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    for entries in by_image.values():
        names = sorted({first(entry[column]) for entry in entries if column and entry[column]})
        same |= dict.fromkeys(names[1:], names[0]) if names else {}
    return {name: first(name) for name in same}


def _row(
    path: str,
    entry: Mapping[str, Any],
    folder_row: Row | None,
    table: ImageTable,
    are_classes: bool,
) -> Row:
    """Return an image's row; label and split come from the folders if the table lacks them.

    ``are_classes``: whether the folders have the names of classes.
    """
    default = folder_row or image_row(path, None, "folder")
    return image_row(
        path,
        entry.get("label") or (default["label"] if are_classes else None),
        entry.get("source") or "folder",
        entry.get("split") or default["split_published"],
        entry[table.patient] if table.patient is not None else None,
        **{name: entry[name] for name in table.metadata},
    )


def _fault(
    row: Row,
    differing: Mapping[str, list[str]],
    folder_row: Row | None,
    labels: set[str],
    table: ImageTable,
) -> tuple[str, str] | None:
    """Return reason and detail if the entries of an image cannot be used.

    Args:
        row: the image's row.
        differing: the values that differ between its entries, by column.
        folder_row: the image's row according to its folder.
        labels: all labels of the table; a folder of another name is no class folder.
        table: the table of the entries.
    """
    if "label" in differing:
        return CONFLICT, f"{table.name} names it as {' and as '.join(sorted(differing['label']))}"
    if row["label"] is None:
        return NO_LABEL, f"{table.name} gives none"
    contradictions = [
        f"{name} {' and '.join(differing[name])}"
        for name in (table.patient, "split")
        if name is not None and name in differing
    ]
    if contradictions:
        return CONTRADICTION, f"{table.name} names it with {', with '.join(contradictions)}"
    folder = folder_row["label"] if folder_row is not None else None
    if folder in labels and folder != row["label"]:
        return CONFLICT, f"{table.name} says {row['label']}, its folder {folder}"
    return None


def find_types(rows: list[Row], table: ImageTable) -> list[str]:
    """Turn the table's columns of numbers into numbers; return notes on columns of both.

    Among numbers, a text such as ``unknown`` is a missing value; among words, it is a word.
    """
    notes = []
    for name in table.metadata:
        cells = [row[name] for row in rows]
        texts = [None if patients.is_missing(cell, name=True) else cell for cell in cells]
        values, words = numbers(texts, decimal_comma=table.decimal_comma)
        if words:
            notes.append(
                f"{table.name}: the column {name} has numbers and words (such as {words[0]!r}), so "
                "that all are taken as words."
            )
        # A column of words keeps its cells as they are written.
        for row, value in zip(rows, cells if values is texts else values, strict=True):
            row[name] = value
    return notes
