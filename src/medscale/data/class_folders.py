"""The common layout of raw folders: a folder for each class, with or without split folders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from unicodedata import normalize

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.data.inventory import NO_FOLDER, OTHER_CLASS, Excluded, Row, image_row, split_of
from medscale.data.listing import Listing
from medscale.data.spelling import several_spellings

SHOWN = 8  # labels of a message


def rows_by_folder(listing: Listing, source: str) -> tuple[dict[str, Row], list[Excluded]]:
    """Return the rows of the images in class folders; other images are left out.

    The layouts are ``<class>/*``, ``<split>/<class>/*`` and ``<class>/<split>/*``.

    Args:
        listing: listing of the raw folder.
        source: name of the source set.

    Returns:
        Rows by path, and the images that are left out.
    """
    splits = _split_folders(listing)
    depth = 1 if splits else 0  # position of the class folder in a path
    are_below = not splits and _are_splits_below(listing)
    rows, left_out = {}, []
    for path in listing.images:
        parts = listing.parts(path)
        if len(parts) < depth + 2 or (splits and parts[0] not in splits):
            left_out.append((path, NO_FOLDER, "stands in no class folder"))
            continue
        split = split_of(parts[0]) if splits else split_of(parts[1]) if are_below else None
        rows[path] = image_row(path, normalize("NFC", parts[depth]), source, split)
    return rows, left_out


def class_folders(listing: Listing) -> list[str]:
    """Return the names of the class folders, empty folders included."""
    if splits := _split_folders(listing):
        names = {name for split in splits for name in listing.below(split)}
    else:
        names = set(listing.folders)
    return sorted({normalize("NFC", name) for name in names})


def select_classes(rows: list[Row], classes: Sequence[str]) -> tuple[list[Row], list[Excluded]]:
    """Return the rows of the study's classes, and the other images as left out."""
    left_out = [
        (str(row["path"]), OTHER_CLASS, f"class {row['label']}")
        for row in rows
        if row["label"] not in classes
    ]
    return [row for row in rows if row["label"] in classes], left_out


def refuse_spellings(root: Path, names: Collection[str]) -> None:
    """Raise MedscaleError if labels are spellings of one name.

    Such are the folders ``train/NORMAL`` and ``test/Normal``, or the cells 1 and 01 of a table.
    """
    if groups := several_spellings(names):
        raise MedscaleError(
            f"{root}: the labels {', '.join(map(repr, groups[0]))} differ only by capitals, spaces "
            "or zeros; write them alike, or name the study's classes with `classes`"
        )


def check_classes(
    listing: Listing,
    classes: list[str],
    rows: list[Row],
    expected: str,
    labels: Collection[str] = (),
    hints: Sequence[str] = (),
) -> None:
    """Check that each class has images.

    Args:
        listing: listing of the raw folder.
        classes: classes of the study.
        rows: rows of the images of these classes.
        expected: the expected layout, for the message.
        labels: all labels of the images, in which a class may have another name.
        hints: further sentences of the message.

    Raises:
        MedscaleError: for a class without images.
    """
    with_images = {row["label"] for row in rows}
    if empty := [name for name in classes if name not in with_images]:
        unused_labels = sorted(set(labels) - {*classes})
        meant = "; " + text if (text := suggestion(empty[0], unused_labels)) else " "
        more = ", …" if len(labels) > SHOWN else ""
        images_of = f"; labels: {', '.join(sorted(labels)[:SHOWN])}{more}" if labels else ""
        raise MedscaleError(
            f"{listing.root}: no images of class {', '.join(map(repr, empty))}{meant}"
            f"(found: {listing.summary()}{images_of}); add images, remove the folder, or name the "
            f"study's classes with `classes`.\n  {_lines(expected, *hints)}"
        )


def no_usable_images(listing: Listing, expected: str, hints: Sequence[str] = ()) -> MedscaleError:
    """Return the error for a raw folder without images in class folders."""
    return MedscaleError(
        f"{listing.root} holds no usable images.\n  "
        + _lines(expected, f"Found: {listing.summary()}", *hints)
    )


def _lines(*sentences: str) -> str:
    return "\n  ".join(sentences)


def _split_folders(listing: Listing) -> list[str]:
    """Return the folders that are published splits; none if the folders are classes.

    A class may have the name "test". Folders are splits if one of them is the training split, or if
    all have names of splits.
    """
    names = [name for name in listing.folders if split_of(name)]
    has_train = any(split_of(name) == "train" for name in names)
    return names if has_train or (names and len(names) == len(listing.folders)) else []


def _are_splits_below(listing: Listing) -> bool:
    """Return whether all images in class folders stand in ``<class>/<split>``."""
    paths = [parts for path in listing.images if len(parts := listing.parts(path)) > 1]
    return "train" in (splits := {split_of(parts[1]) for parts in paths}) and None not in splits
