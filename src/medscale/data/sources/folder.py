"""Any image folder: a folder a class, or train|val|test with a folder a class, and an optional index.csv."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.sections import Source
from medscale.data.sources import found as f
from medscale.data.sources.found import (
    Excluded,
    Found,
    Listing,
    found,
    list_folder,
    read_table,
    same_name,
)

INDEX = "index.csv"
EXPECTED = (
    "Expected: <class>/*.jpg|png|… or train|val|test/<class>/*, optionally index.csv (path,label,patient,split).\n"
    "  There is no download: set source.path to your own images."
)
RESERVED = ("id", "split_published", "group", "width", "height", "sha256", "alike")


def scan(source: Source, classes: list[str] | None) -> Found:
    """List an image folder; with an index.csv its labels, patients and splits count, else the folders' names.

    Further columns of index.csv become metadata. Images that it does not list, entries without a file, and entries
    whose label is another class than the folder's are left out and listed.

    Raises:
        MedscaleError: when the folder is missing, has no images, index.csv does not fit, or a class has no images.
    """
    if source.options:
        raise MedscaleError(
            f"source kind folder has no options, found: {', '.join(source.options)}"
        )
    listing = list_folder(source.path, EXPECTED)
    root = Path(str(source.path))
    by_folder, unplaced = by_folders(listing, "folder")
    table = next((p for p in (root / INDEX, root / listing.base / INDEX) if p.is_file()), None)
    if table is not None:
        rows, left_out, notes, metadata = _by_index(table, root, listing, by_folder)
    else:
        rows, left_out, notes, metadata = list(by_folder.values()), unplaced, [], []
    if not rows:
        raise MedscaleError(
            f"{root} holds no usable images.\n  {EXPECTED}\n  Found: {listing.summary()}"
        )
    names = classes if classes is not None else sorted({str(row["label"]) for row in rows})
    if table is None and classes is None:
        names = sorted({*names, *class_folders(listing)})
    rows, others = of_classes(rows, names)
    check_classes(root, names, rows, listing, EXPECTED)
    return found(rows, [*listing.excluded, *left_out, *others], names, notes, metadata)


def _split_folders(listing: Listing) -> list[str]:
    """Folders that are published splits; none when the folders are classes."""
    known = [name for name in listing.folders if name.lower() in f.SPLITS]
    has_train = any(f.SPLITS[name.lower()] == "train" for name in known)
    return known if has_train or (known and len(known) == len(listing.folders)) else []


def class_folders(listing: Listing) -> list[str]:
    """Names of the folders that stand for a class, those without images too."""
    splits = _split_folders(listing)
    return (
        sorted({name for split in splits for name in listing.below(split)})
        if splits
        else listing.folders
    )


def by_folders(listing: Listing, source: str) -> tuple[dict[str, dict[str, Any]], list[Excluded]]:
    """A row for each image in a class folder, by path, with ``source`` as its source set; the others are left out."""
    splits = _split_folders(listing)
    rows, left_out = {}, []
    for path in listing.images:
        parts = listing.parts(path)
        depth = 1 if splits else 0
        if len(parts) < depth + 2 or (splits and parts[0] not in splits):
            left_out.append((path, f.NO_FOLDER, "stands in no class folder"))
            continue
        split = f.SPLITS[parts[0].lower()] if splits else None
        rows[path] = {
            "path": path,
            "label": parts[depth],
            "split_published": split,
            "group": None,
            "source": source,
        }
    return rows, left_out


def of_classes(
    rows: list[dict[str, Any]], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[Excluded]]:
    """The rows whose label is one of ``names``, and the others as left out."""
    others = [
        (str(row["path"]), f.OTHER_CLASS, f"class {row['label']}")
        for row in rows
        if row["label"] not in names
    ]
    return [row for row in rows if row["label"] in names], others


def _by_index(
    table: Path, root: Path, listing: Listing, by_folder: dict[str, dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[Excluded], list[str], list[str]]:
    """Rows, files and entries left out, notes, and names of metadata columns, as index.csv says."""
    entries = read_table(table, ["path"])
    metadata = [
        c
        for c in entries.columns
        if c not in ("path", "label", "patient", "split", "source", *RESERVED)
    ]
    ignored = [c for c in entries.columns if c in RESERVED]
    notes = [f"{INDEX}: the columns {', '.join(ignored)} are not read"] if ignored else []
    here = table.parent.relative_to(root)
    on_disk = {same_name(path): path for path in listing.images}
    known = {same_name(path) for path, _, _ in listing.excluded}
    labels = set(entries["label"].dropna()) if "label" in entries else set()
    rows: dict[str, dict[str, Any]] = {}
    left_out: dict[str, Excluded] = {}
    for entry in entries.to_dict("records"):
        named = same_name(str(PurePosixPath(here, same_name(str(entry["path"] or "")))))
        path = on_disk.get(named)
        if path is None:
            if named not in known:
                left_out[named] = (
                    named,
                    f.NO_FILE,
                    f"{INDEX} names it, but there is no such image file",
                )
            continue
        row = _row(path, entry, by_folder.get(path), metadata, table)
        if fault := _fault(row, rows.get(path), by_folder.get(path), labels):
            left_out.setdefault(path, (path, *fault))
        rows[path] = row
    unlisted = [
        (path, f.NOT_LISTED, f"{INDEX} does not name it")
        for path in listing.images
        if path not in rows
    ]
    used = [row for path, row in rows.items() if path not in left_out]
    return used, [*left_out.values(), *unlisted], notes, metadata


def _row(
    path: str,
    entry: Mapping[Hashable, Any],
    folder: dict[str, Any] | None,
    metadata: list[str],
    table: Path,
) -> dict[str, Any]:
    """An image's row: what index.csv leaves open is taken from the folders."""
    split = entry.get("split")
    if split is not None and split.lower() not in f.SPLITS:
        raise MedscaleError(
            f"{table}: {entry['path']}: split {split!r} is not one of train, val, test"
        )
    default = folder or {"label": None, "split_published": None}
    return {
        "path": path,
        "label": entry.get("label") or default["label"],
        "split_published": f.SPLITS[split.lower()]
        if split is not None
        else default["split_published"],
        "group": entry.get("patient"),
        "source": entry.get("source") or "folder",
        **{name: entry[name] for name in metadata},
    }


def _fault(
    row: dict[str, Any],
    before: dict[str, Any] | None,
    folder: dict[str, Any] | None,
    labels: set[str],
) -> tuple[str, str] | None:
    """Why an entry of index.csv cannot be used."""
    if row["label"] is None:
        return f.NO_LABEL, f"{INDEX} gives none"
    if before is not None and before["label"] != row["label"]:
        return f.CONFLICT, f"{INDEX} names it as {before['label']} and as {row['label']}"
    if folder is not None and folder["label"] in labels and folder["label"] != row["label"]:
        return f.CONFLICT, f"{INDEX} says {row['label']}, its folder {folder['label']}"
    return None


def check_classes(
    root: Path, names: list[str], rows: list[dict[str, Any]], listing: Listing, expected: str
) -> None:
    """Raise MedscaleError, which says what was expected, for a class without images, or when there is only one."""
    counts = pd.Series([row["label"] for row in rows], dtype=object).value_counts()
    if empty := [name for name in names if name not in counts]:
        raise MedscaleError(
            f"{root}: no images of class {', '.join(map(repr, empty))} (found: {listing.summary()}); "
            "add images, remove the folder, or name the classes that you want with `classes`.\n  "
            + expected
        )
    if len(names) < 2:
        raise MedscaleError(
            f"{root}: only one class, {names[0]!r}; a classification needs at least two.\n  {expected}"
        )
