"""A person's own images: a folder per class, or train|val|test with a folder per class.

An optional ``index.csv`` gives labels, patients, splits and metadata.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data import patients
from medscale.data.class_folders import (
    check_classes,
    class_folders,
    no_usable_images,
    rows_by_folder,
    select_classes,
)
from medscale.data.inventory import (
    CONFLICT,
    CONTRADICTION,
    NO_FILE,
    NO_LABEL,
    NOT_LISTED,
    SPLITS,
    Excluded,
    Inventory,
    Row,
    image_row,
    make_inventory,
)
from medscale.data.kind import DatasetKind
from medscale.data.listing import Listing, list_folder, normalized_path, read_table
from medscale.data.metadata import numbers
from medscale.data.settings import Datasheet, Source

INDEX = "index.csv"
EXPECTED = (
    "Expected: <class>/*.jpg|png|… or train|val|test/<class>/*, optionally index.csv "
    "(path,label,patient,split).\n"
    "  There is no download: set source.path to your own images."
)
# Columns of the index that the package computes, so that index.csv cannot give them.
RESERVED = ("id", "split_published", "group", "width", "height", "sha256", "alike", "boxes")
MEANINGS = ("path", "label", "patient", "split", "source")  # columns that are not metadata


@dataclass(frozen=True)
class _Table:
    """index.csv."""

    file: Path  # its path
    entries: pd.DataFrame  # its lines as text; a missing value is None
    metadata: list[str]  # names of its columns of metadata
    patient: str | None  # its column that names patients, or parts of patients; None without one


def scan(source: Source, classes: list[str] | None) -> Inventory:
    """List an image folder; labels, patients and splits of an index.csv override folder names.

    Further columns of index.csv become metadata, each of numbers or of words. Left out are images
    that it does not list, entries without a file, entries whose label is another class than their
    folder, and images whose entries contradict each other. Raises MedscaleError if the folder is
    missing or has no images, index.csv does not fit, a class has no images, or the patients' column
    or expression is not found or not clear.
    """
    listing = list_folder(source.path, EXPECTED)
    by_folder, left_out = rows_by_folder(listing, "folder")
    rows, notes = list(by_folder.values()), list[str]()
    table = _read_table(listing, source.patient)
    if table is not None:
        rows, left_out = _rows_by_index(table, listing, by_folder)
        notes = _notes_on_columns(table)
    if not rows:
        raise no_usable_images(listing, EXPECTED)
    names = classes if classes is not None else sorted({str(row["label"]) for row in rows})
    if table is None and classes is None:
        names = sorted({*names, *class_folders(listing)})
    rows, other_classes = select_classes(rows, names)
    check_classes(listing, names, rows, EXPECTED)
    origin, patient_notes = _name_patients(rows, table, source.patient)
    metadata = table.metadata if table is not None else []
    notes += _find_types(rows, metadata)
    excluded_files = [
        file for file in listing.excluded if table is None or not _is_table(file, table)
    ]
    excluded = [*excluded_files, *left_out, *other_classes]
    more = {"reads_headers": True, "patient_notes": patient_notes}
    return make_inventory(rows, excluded, names, notes, metadata, origin, **more)


def _is_table(file: Excluded, table: _Table) -> bool:
    """Return whether a file that is no image is index.csv itself."""
    return table.file.as_posix().endswith(f"/{file[0]}") and table.file.name == INDEX


def _read_table(listing: Listing, patient: str | None) -> _Table | None:
    """Read index.csv if there is one; ``patient`` is the setting source.patient.

    The columns path, label, split and source may be written in capitals.
    """
    file = listing.find_file(INDEX)
    if file is None:
        return None
    entries = read_table(file, [])
    columns_by_name = {name.lower(): name for name in reversed(entries.columns)}
    renamed = {
        columns_by_name[name]: name
        for name in MEANINGS
        if name in columns_by_name and name not in entries and name != patients.PATIENT
    }
    entries = entries.rename(columns=renamed)
    if "path" not in entries:
        raise MedscaleError(f"{file}: no column path; it has: {', '.join(entries.columns)}")
    names = [str(name) for name in entries.columns]
    column = patient if patient in names else None
    if patient is None:
        column = patients.patient_column(names, INDEX)
    metadata = [name for name in names if name not in (*MEANINGS, *RESERVED)]
    for name in (*metadata, "split", "source"):
        if name in entries:
            missing = entries[name].map(patients.is_missing)
            entries[name] = entries[name].where(~missing, None)
    if column is not None:
        no_name = entries[column].map(lambda text: patients.is_missing(text, name=True))
        entries[column] = entries[column].where(~no_name, None)
    return _Table(file, entries, metadata, column)


def _notes_on_columns(table: _Table) -> list[str]:
    """Return notes on columns that are not read, or read under another name."""
    notes = []
    if ignored := [name for name in table.entries.columns if name in RESERVED]:
        notes.append(f"{INDEX}: the columns {', '.join(ignored)} are not read")
    if table.patient is None or table.patient == patients.PATIENT:
        return notes
    if patients.names_part(table.patient):
        notes.append(
            f"{INDEX}: images of the same {table.patient} are kept together; this column does not "
            "name patients, and images of one patient can have several."
        )
    else:
        notes.append(f"{INDEX}: the column {table.patient} is read as the patient.")
    return notes


def _rows_by_index(
    table: _Table, listing: Listing, by_folder: dict[str, Row]
) -> tuple[list[Row], list[Excluded]]:
    """Return rows, and left-out files and entries, according to index.csv.

    Paths in index.csv are relative to its folder. An image may have several entries: values that
    one of them lacks are those of the others. If label, patient or split differ, the image is left
    out; metadata that differ are missing. Raises MedscaleError if no entry names an image, or a
    split has another name.
    """
    folder = table.file.parent.relative_to(listing.root)
    images = {normalized_path(path): path for path in listing.images}
    other_files = {normalized_path(path) for path, _, _ in listing.excluded}
    entries = [_entry(entry, table.file) for entry in table.entries.to_dict("records")]
    labels = {entry["label"] for entry in entries if entry.get("label")}
    by_image: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, Excluded] = {}
    for entry in entries:
        name = normalized_path(str(PurePosixPath(folder, normalized_path(entry["path"] or ""))))
        if name in images:
            by_image.setdefault(images[name], []).append(entry)
        elif name not in other_files:
            detail = f"{INDEX} names it, but there is no such image file"
            left_out[name] = (name, NO_FILE, detail)
    if not by_image:
        raise _no_image_named(table, listing)
    same_patient = _same_patient(by_image, table.patient)
    rows: list[Row] = []
    for path, of_image in by_image.items():
        merged, differing = _merge(of_image)
        row = _row(path, merged, by_folder.get(path), table)
        row["group"] = same_patient.get(row["group"], row["group"])
        if fault := _fault(row, differing, by_folder.get(path), labels, table.patient):
            left_out[path] = (path, *fault)
        else:
            rows.append(row)
    unlisted = [path for path in listing.images if path not in by_image]
    left_out |= {path: (path, NOT_LISTED, f"{INDEX} does not name it") for path in unlisted}
    return rows, list(left_out.values())


def _entry(entry: Mapping[Hashable, Any], file: Path) -> dict[str, Any]:
    """Return an entry with label and split in the package's form."""
    label, split = entry.get("label"), entry.get("split")
    if split is not None and split.lower() not in SPLITS:
        raise MedscaleError(
            f"{file}: {entry['path']}: split {split!r} is not one of train, val, test"
        )
    values = {str(name): value for name, value in entry.items()}
    if label is not None:
        values["label"] = normalize("NFC", label)
    return values if split is None else values | {"split": SPLITS[split.lower()]}


def _no_image_named(table: _Table, listing: Listing) -> MedscaleError:
    """Return the error for an index.csv whose paths lead nowhere."""
    paths = table.entries["path"].dropna()
    if paths.empty:
        return MedscaleError(f"{table.file}: the column path is empty")
    if not listing.images:
        return no_usable_images(listing, EXPECTED)
    below = [
        path for path in listing.images if (listing.root / path).is_relative_to(table.file.parent)
    ]
    example = listing.root / (below or listing.images)[0]
    example_path = example.relative_to(table.file.parent) if below else example
    return MedscaleError(
        f"{table.file} names {paths.nunique()} images, none of which is there (first: "
        f"{paths.iloc[0]}); paths are relative to the folder of {INDEX}, with the file's ending, "
        f"such as {example_path.as_posix()}"
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


def _row(path: str, entry: Mapping[str, Any], folder_row: Row | None, table: _Table) -> Row:
    """Return an image's row; label and split come from the folders if index.csv lacks them."""
    default = folder_row or image_row(path, None, "folder")
    return image_row(
        path,
        entry.get("label") or default["label"],
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
    patient: str | None,
) -> tuple[str, str] | None:
    """Return reason and detail if the entries of an image cannot be used.

    Args:
        row: the image's row.
        differing: the values that differ between its entries, by column.
        folder_row: the image's row according to its folder.
        labels: all labels of index.csv; a folder of another name is no class folder.
        patient: the column of the patients.
    """
    if "label" in differing:
        return CONFLICT, f"{INDEX} names it as {' and as '.join(sorted(differing['label']))}"
    if row["label"] is None:
        return NO_LABEL, f"{INDEX} gives none"
    contradictions = [
        f"{name} {' and '.join(differing[name])}"
        for name in (patient, "split")
        if name is not None and name in differing
    ]
    if contradictions:
        return CONTRADICTION, f"{INDEX} names it with {', with '.join(contradictions)}"
    folder = folder_row["label"] if folder_row is not None else None
    if folder in labels and folder != row["label"]:
        return CONFLICT, f"{INDEX} says {row['label']}, its folder {folder}"
    return None


def _name_patients(
    rows: list[Row], table: _Table | None, setting: str | None
) -> tuple[str | None, list[str]]:
    """Set each row's group by source.patient where it is an expression.

    Returns:
        Where patients' names come from, None without, and notes.
    """
    column = table.patient if table is not None else None
    paths = [str(row["path"]) for row in rows]
    if column is None and setting is not None:
        for row, name in zip(rows, patients.by_pattern(paths, setting), strict=True):
            row["group"] = name
        return f"the expression {setting}", []
    if column is not None and setting is None and patients.names_part(column):
        return None, []
    if column is not None and any(row["group"] is not None for row in rows):
        return f"column {column} of {INDEX}", []
    return None, patients.note_on_prefixes(paths)


def _find_types(rows: list[Row], metadata: Sequence[str]) -> list[str]:
    """Turn the columns of numbers into numbers; return notes on columns of both."""
    notes = []
    for name in metadata:
        values, words = numbers([row[name] for row in rows])
        if words:
            notes.append(
                f"{INDEX}: the column {name} has numbers and words (such as {words[0]!r}), so "
                "that all are taken as words."
            )
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return notes


KIND = DatasetKind(scan=scan, datasheet=Datasheet(), takes_patient=True)
