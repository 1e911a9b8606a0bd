"""Hints for a folder of images in another layout: where labels and tables are, what to set."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from unicodedata import normalize

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data import patients
from medscale.data.image_table import short_names
from medscale.data.inventory import Row
from medscale.data.listing import Listing, normalized_path, read_table

TABLES = (".csv", ".tsv")
LARGEST_TABLE = 100 * 2**20  # bytes; a larger file is not searched for columns
SHARE = 0.5  # of the images: a column that names so many is the column of images
# Column names of labels, in the tables of public datasets and of spreadsheets.
LABELS = re.compile(
    r"(?:.*(?:label|class|diagnos[ie]s|target|category|finding|outcome).*|dx|y|klasse|diagnose)",
    re.IGNORECASE,
)


def label_hints(listing: Listing, classes: Sequence[str] | None) -> list[str]:
    """Return a sentence on setting ``source.label`` where paths contain the names of the classes.

    Args:
        listing: the raw folder.
        classes: classes of the study; None where it names none.
    """
    if not listing.images:
        return []
    alternatives = "|".join(map(re.escape, classes or ()))
    for expression in (rf"/({alternatives})/", rf"({alternatives})") if classes else ():
        pattern = re.compile(expression)
        names = listing.images if "/" in expression else map(_name, listing.images)
        matches = {match[1] for name in names if (match := pattern.search(name))}
        if matches == set(classes or ()):
            place = "paths" if "/" in expression else "file names"
            return [f"The {place} contain the classes: set source.label: '{expression}'"]
    if any(len(listing.parts(path)) > 1 for path in listing.images):
        return []
    return [
        "If this is the folder of one class, set source.path to the folder above. Otherwise images "
        "in no class folder need a table (source.table), or file names that contain the class "
        "(source.label)."
    ]


def unread_tables(listing: Listing, by_folder: Mapping[str, Row]) -> list[str]:
    """Return a sentence on each table in the raw folder that names the images but is not read.

    Args:
        listing: the raw folder.
        by_folder: rows of the images in class folders by path.
    """
    sentences = []
    for path, _, _ in listing.excluded:
        file = listing.root / path
        if path.lower().endswith((".xlsx", ".xls", ".ods")):
            sentences.append(f"{path} is not read: save it as CSV UTF-8, then set source.table.")
        elif path.lower().endswith(TABLES) and file.stat().st_size <= LARGEST_TABLE:
            try:
                table = read_table(file, [])
            except MedscaleError:
                sentences.append(f"{path} is not read, and is no CSV file in UTF-8.")
                continue
            sentences += _sentence(path, table, listing.images, by_folder)
    return sentences


def _sentence(
    path: str, table: pd.DataFrame, images: Sequence[str], by_folder: Mapping[str, Row]
) -> list[str]:
    """Return the sentence on a table with a column of images; none for another table."""
    names = {normalized_path(image): image for image in images}
    for image in images:
        names |= dict.fromkeys(short_names(normalized_path(image)), image)
    for column in table.columns:
        cells = table[column].map(lambda cell: names.get(normalized_path(cell or "")))
        count = cells.nunique()
        if count < SHARE * len(images):
            continue
        settings = [f"table: {path}", f"image: {column}"]
        if label := _label_column(table, cells, by_folder):
            settings.append(f"label: {label}")
        return [
            f"{path} names {count:,} of the {len(images):,} images and is not read: set in source "
            f"{{{', '.join(settings)}}}{_patients(table)}"
        ]
    return []


def _label_column(
    table: pd.DataFrame, images: pd.Series, by_folder: Mapping[str, Row]
) -> str | None:
    """Return the column that agrees with the folders, or else has the name of a label."""
    folders = images.map(lambda image: by_folder[image]["label"] if image in by_folder else None)
    for column in table.columns:
        cells = table[column].map(lambda cell: None if cell is None else normalize("NFC", cell))
        if folders.notna().any() and (cells == folders)[folders.notna()].mean() > SHARE:
            return str(column)
    return next((str(name) for name in table.columns if LABELS.fullmatch(str(name))), None)


def _patients(table: pd.DataFrame) -> str:
    """Return the end of the sentence: the column of the patients, if there is one."""
    columns: Collection[str] = [str(name) for name in table.columns]
    try:
        column = patients.patient_column([*columns], "")
    except MedscaleError:
        return "; several columns look like the patients: name one as patient"
    if column is None:
        return ""
    kind = "keeps images together" if patients.names_part(column) else "then names the patients"
    return f"; the column {column} {kind}"


def _name(path: str) -> str:
    return PurePosixPath(path).name
