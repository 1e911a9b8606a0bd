"""A person's own images: a folder per class, or train|val|test with a folder per class.

An optional ``index.csv`` gives labels, patients, splits and metadata.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.data.class_folders import (
    check_classes,
    class_folders,
    no_usable_images,
    rows_by_folder,
    select_classes,
)
from medscale.data.inventory import (
    CONFLICT,
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
from medscale.data.settings import Datasheet, Source

INDEX = "index.csv"
EXPECTED = (
    "Expected: <class>/*.jpg|png|… or train|val|test/<class>/*, optionally index.csv "
    "(path,label,patient,split).\n"
    "  There is no download: set source.path to your own images."
)
# Columns of the index that the package computes, so that index.csv cannot give them.
RESERVED = ("id", "split_published", "group", "width", "height", "sha256", "alike")
MEANINGS = ("path", "label", "patient", "split", "source")  # columns that are not metadata


def scan(source: Source, classes: list[str] | None) -> Inventory:
    """List an image folder; labels, patients and splits of an index.csv override folder names.

    Further columns of index.csv become metadata. Left out are images that it does not list, entries
    without a file, and entries whose label is another class than their folder.

    Raises:
        MedscaleError: if the folder is missing or has no images, index.csv does not fit, or a class
            has no images.
    """
    listing = list_folder(source.path, EXPECTED)
    by_folder, left_out = rows_by_folder(listing, "folder")
    rows, notes, metadata = list(by_folder.values()), list[str](), list[str]()
    table = listing.find_file(INDEX)
    if table is not None:
        rows, left_out, notes, metadata = _rows_by_index(table, listing, by_folder)
    if not rows:
        raise no_usable_images(listing, EXPECTED)
    names = classes if classes is not None else sorted({str(row["label"]) for row in rows})
    if table is None and classes is None:
        names = sorted({*names, *class_folders(listing)})
    rows, other_classes = select_classes(rows, names)
    check_classes(listing, names, rows, EXPECTED)
    excluded = [*listing.excluded, *left_out, *other_classes]
    return make_inventory(rows, excluded, names, notes, metadata)


def _rows_by_index(
    table: Path, listing: Listing, by_folder: dict[str, Row]
) -> tuple[list[Row], list[Excluded], list[str], list[str]]:
    """Return rows, left-out files and entries, notes, and metadata columns according to index.csv.

    Paths in index.csv are relative to its folder. The labels of repeated entries must agree.
    """
    entries = read_table(table, ["path"])
    metadata = [name for name in entries.columns if name not in (*MEANINGS, *RESERVED)]
    ignored = [name for name in entries.columns if name in RESERVED]
    notes = [f"{INDEX}: the columns {', '.join(ignored)} are not read"] if ignored else []
    folder = table.parent.relative_to(listing.root)
    images = {normalized_path(path): path for path in listing.images}
    other_files = {normalized_path(path) for path, _, _ in listing.excluded}
    labels = set(entries["label"].dropna()) if "label" in entries else set()
    rows: dict[str, Row] = {}
    left_out: dict[str, Excluded] = {}
    for entry in entries.to_dict("records"):
        name = normalized_path(str(PurePosixPath(folder, normalized_path(entry["path"] or ""))))
        path = images.get(name)
        if path is None:
            if name not in other_files:
                detail = f"{INDEX} names it, but there is no such image file"
                left_out[name] = (name, NO_FILE, detail)
            continue
        row = _row(path, entry, by_folder.get(path), metadata, table)
        if fault := _fault(row, rows.get(path), by_folder.get(path), labels):
            left_out.setdefault(path, (path, *fault))
        rows[path] = row
    unlisted = [path for path in listing.images if path not in rows]
    excluded = [
        *left_out.values(),
        *((p, NOT_LISTED, f"{INDEX} does not name it") for p in unlisted),
    ]
    return [row for path, row in rows.items() if path not in left_out], excluded, notes, metadata


def _row(
    path: str,
    entry: Mapping[Hashable, Any],
    folder_row: Row | None,
    metadata: list[str],
    table: Path,
) -> Row:
    """Return an image's row; label and split come from the folders if index.csv lacks them."""
    split = entry.get("split")
    if split is not None and split.lower() not in SPLITS:
        raise MedscaleError(
            f"{table}: {entry['path']}: split {split!r} is not one of train, val, test"
        )
    default = folder_row or image_row(path, None, "folder")
    return image_row(
        path,
        entry.get("label") or default["label"],
        entry.get("source") or "folder",
        default["split_published"] if split is None else SPLITS[split.lower()],
        entry.get("patient"),
        **{name: entry[name] for name in metadata},
    )


def _fault(
    row: Row, earlier: Row | None, folder_row: Row | None, labels: set[str]
) -> tuple[str, str] | None:
    """Return reason and detail if an entry of index.csv cannot be used.

    Args:
        row: the entry's row.
        earlier: the row of an earlier entry of the same image.
        folder_row: the image's row according to its folder.
        labels: all labels of index.csv; a folder of another name is no class folder.
    """
    if row["label"] is None:
        return NO_LABEL, f"{INDEX} gives none"
    if earlier is not None and earlier["label"] != row["label"]:
        return CONFLICT, f"{INDEX} names it as {earlier['label']} and as {row['label']}"
    folder = folder_row["label"] if folder_row is not None else None
    if folder in labels and folder != row["label"]:
        return CONFLICT, f"{INDEX} says {row['label']}, its folder {folder}"
    return None


KIND = DatasetKind(scan=scan, datasheet=Datasheet())
