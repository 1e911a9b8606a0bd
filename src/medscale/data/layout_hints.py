"""Hints for a folder of images in another layout: where labels and tables are, what to set."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import filter as filter_names
from pathlib import PurePosixPath
from unicodedata import normalize

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data import class_columns, patients
from medscale.data.image_names import ImageNames
from medscale.data.image_table import ImageTable
from medscale.data.inventory import Row, split_of
from medscale.data.kind import kind_names, load_kind
from medscale.data.listing import Listing, read_table
from medscale.data.masks import FOLDER as MASKS

JOINED = re.compile(r"[|;,/+&]")  # separators of several labels of an image
# Labels of images without a label, or of an uncertain one, which is -1 in CheXpert and SMDG.
UNLABELLED = re.compile(
    r"(?:images? )?(?:un[ _-]?(?:label+ed|sorted|classified|known|certain)|no[ _-]label|rejected)"
    r"|-1(?:\.0+)?",
    re.IGNORECASE,
)
TABLES = (".csv", ".tsv")
LARGEST_TABLE = 100 * 2**20  # bytes; a larger file is not searched for columns
SHARE = 0.5  # of the rows, or of the images: a column that names so many is that of the images
FEWEST_LETTERS = 5  # of a class that is recognized within a longer word, such as normal in normal2
SHOWN = 4  # values of a column in a message
# Column names of labels, in the tables of public datasets and of spreadsheets.
LABELS = re.compile(
    r"(?:.*(?:label|class|diagnos|target|category|finding|outcome|grade|level).*|dx|y|klasse)",
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
    # Expressions are searched in paths of Unicode's composed form (``patients.by_pattern``).
    paths = [normalize("NFC", path) for path in listing.images]
    for expression in _label_expressions(classes or ()):
        pattern = re.compile(expression)
        names = paths if "/" in expression else map(_name, paths)
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


def _label_expressions(classes: Sequence[str]) -> list[str]:
    """Return expressions of the classes in paths: as a folder, in a folder's or a file's name.

    The first alternative that matches counts, so longer names come first: ``tumor`` begins
    ``tumor_free``. A class such as ``0`` or ``nv`` is a part of other numbers or words as well, so
    it must stand alone.
    """
    if not classes:
        return []
    alternatives = "|".join(map(re.escape, sorted(classes, key=len, reverse=True)))
    group = f"({alternatives})"
    if min(map(len, classes)) < FEWEST_LETTERS:
        letters = "A-Za-z0-9" if re.search(r"\d", alternatives) else "A-Za-z"
        group = f"(?<![{letters}]){group}(?![{letters}])"
    return [f"/({alternatives})/", f"{group}[^/]*/", group]


def doubtful_labels(
    listing: Listing, names: Sequence[str], table: ImageTable | None, *, has_label: bool
) -> list[str]:
    """Return sentences on labels that may not be the classes.

    These are labels that join others (``a|b``) or mean that there is none (``unlabelled``), and
    names of folders if each of these folders has folders of the same names, or if a table lacks
    labels.

    Args:
        listing: the raw folder.
        names: all labels.
        table: the table of images; None without one.
        has_label: whether ``source.label`` is set.
    """
    sentences = [
        f"{name!r} is read as a class; name the study's classes with `classes` to leave it out."
        for name in names
        if UNLABELLED.fullmatch(name)
    ]
    joined = [name for name in names if _parts(name) & ({*names} - {name})]
    if joined:
        sentences.append(
            f"Labels that join others ({len(joined)}, such as {joined[0]}) are separate classes."
        )
    if has_label or (table is not None and "label" in table.entries):
        return sentences
    below = [
        {name for name in listing.below(label) if not MASKS.fullmatch(name)} for label in names
    ]
    shared = sorted(set.intersection(*below)) if below else []
    # More shared names than class folders are rather numbers of studies, as on DICOM media.
    if 1 < len(shared) <= len(names) and not any(map(split_of, shared)):
        expression = f"/({'|'.join(map(re.escape, shared))})/"
        sentences.append(
            f"Each of the {len(names)} class folders has the folders {', '.join(shared)}: if these "
            f"are the classes, set source.label: '{expression}'"
        )
    if table is not None and len(names) == 1:
        sentences.append(no_label_column(table))
    return sentences


def _parts(name: str) -> set[str]:
    """Return the labels that a label joins, such as a|b, or ['a', 'b'] as Python writes a list."""
    return {part.strip(" []()'\"") for part in JOINED.split(name)}


def no_label_column(table: ImageTable, classes: Sequence[str] | None = None) -> str:
    """Return the sentence on a table without labels; it may have a column for each class."""
    columns = ", ".join(map(str, table.entries))
    text = f"{table.name} has no column label (source.label); it has: {columns}"
    return text + class_columns.remedy(table.entries, classes)


def unread_tables(
    listing: Listing, by_folder: Mapping[str, Row], classes: Sequence[str] | None
) -> list[str]:
    """Return a sentence on each table in the raw folder that names the images but is not read.

    If no folder has the name of a class, there is a sentence on the other tables as well.

    Args:
        listing: the raw folder.
        by_folder: rows of the images in class folders by path.
        classes: classes of the study; None where it names none.
    """
    folders = {row["label"] for row in by_folder.values()}
    has_labels = bool(folders if classes is None else folders & {*classes})
    sentences, count = _kind_hints(listing), 0
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
            if sentence := _sentence(path, table, listing, by_folder, classes):
                sentences.append(sentence)
                count += 1
            elif listing.images and not has_labels and len(table):
                sentences.append(_no_column_of_images(path, table, listing.images))
    if count > 1:
        sentences.append("Only one table is read: join the rows of several in one.")
    return sentences


def _kind_hints(listing: Listing) -> list[str]:
    """Return a sentence on the dataset kind whose publisher's files are in the raw folder."""
    paths = [*listing.images, *(path for path, _, _ in listing.excluded)]
    return [
        f"{matches[0]} looks like a file of the dataset kind {name}: to read that dataset as its "
        f"publisher means it, set source.kind: {name}"
        for name in kind_names()
        for edition in load_kind(name).editions
        for pattern in ([*edition.files] if edition.path == "*" else [edition.path])
        if (matches := filter_names(paths, f"*{pattern}"))
    ][:1]


def _sentence(
    path: str,
    table: pd.DataFrame,
    listing: Listing,
    by_folder: Mapping[str, Row],
    classes: Sequence[str] | None,
) -> str | None:
    """Return the sentence on a table with a column of images; None for another table."""
    names, total = ImageNames(listing, listing.root / path), len(listing.images)
    for column in table.columns:
        try:
            images = names.images([cell or "" for cell in table[column]])
        except MedscaleError:  # a name of several images
            continue
        rows, count = sum(map(bool, images)), len({image for part in images for image in part})
        if not rows or (rows < SHARE * len(table) and count < SHARE * total):
            continue
        settings, end = [f"table: {path}", f"image: {column}"], ""
        if label := _label_column(table, column, images, by_folder, classes):
            settings.append(f"label: {label}")
            end = _other_labels(table, label, classes)
        elif columns := class_columns.find(table, classes):
            settings.append(f"label: [{', '.join(columns)}]")
        return (
            f"{path} names {count:,} of the {total:,} images and is not read: set in source "
            f"{{{', '.join(settings)}}}{_patients(table)}{end}"
        )
    return None


def _no_column_of_images(path: str, table: pd.DataFrame, images: Sequence[str]) -> str:
    """Return the sentence on a table of which no column names the images, and why."""
    stems = [PurePosixPath(image).stem for image in images]
    numbers = {stem.lstrip("0") or "0" for stem in stems if stem.isdigit() and stem.startswith("0")}
    for column in table.columns:
        if len(table) > 1 and table[column].isin(numbers).mean() > SHARE:
            return (
                f"{path} is not read: its column {column} lacks the leading zeros of the file "
                f"names (such as {min(stems)}), which spreadsheets remove; write it as text"
            )
    row = ", ".join(f"{name}: {table[name].iloc[0]}" for name in table.columns[:SHOWN])
    return (
        f"{path} is not read: no column has the paths, file names or folders of the images (an "
        f"image: {images[0]}; its first row: {row})"
    )


def _label_column(
    table: pd.DataFrame,
    column: str,
    images: Sequence[Sequence[str]],
    by_folder: Mapping[str, Row],
    classes: Sequence[str] | None,
) -> str | None:
    """Return the column of the labels: of the classes, of the folders' names, or by its name.

    None if there is no such column, or if each class has a column. ``column`` is that of the
    images.
    """
    if class_columns.has_all(table, classes):
        return None
    rows = [by_folder.get(part[0]) if part else None for part in images]
    folders = pd.Series([row["label"] if row else None for row in rows], table.index, dtype=object)
    columns = table.drop(columns=column)
    cells = columns.map(lambda cell: None if cell is None else normalize("NFC", cell))
    class_names = [name for name in columns if classes and {*classes} <= {*cells[name]}]
    has_folders = folders.notna().any()
    folder_names = [
        name
        for name in columns
        if has_folders and (cells[name] == folders)[folders.notna()].mean() > SHARE
    ]
    by_name = [name for name in columns if LABELS.fullmatch(str(name))]
    return next((str(name) for name in (*class_names, *folder_names, *by_name)), None)


def _other_labels(table: pd.DataFrame, column: str, classes: Sequence[str] | None) -> str:
    """Return the end of the sentence: values of the column of labels that are not the classes."""
    values = sorted({*table[column].dropna()})
    if classes is None or {*classes} <= {*values} or not values:
        return ""
    more = ", …" if len(values) > SHOWN else ""
    return f"; its labels are {', '.join(values[:SHOWN])}{more}: name them in `classes`"


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
