"""Massive Skin Disease Balanced Dataset: clinical photographs, a folder a class, with augmented copies among them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.config.sections import Source
from medscale.data.download import command
from medscale.data.sources.folder import by_folders, check_classes, class_folders, of_classes
from medscale.data.sources.found import Found, found, list_folder

NAME = "Massive Skin Disease Balanced Dataset"
COPY = re.compile(r"^(?:aug_\d+_)+(?=.)", re.IGNORECASE)
EXPECTED = (
    f"Expected the {NAME}: [balanced_dataset/][balanced_dataset/]<class>/*.jpg\n"
    f"    {command('skin')}\n"
    "  then unzip it there, or set source.path to where it is."
)
LICENCE = (
    f"The {NAME} is offered under the MIT licence, but photographs in it carry the watermarks of other publishers, "
    "which makes that licence doubtful."
)


def scan(source: Source, classes: list[str] | None) -> Found:
    """List the set: the folders are the classes, whatever they are called; runs of spaces in their names become one.

    The set was balanced by augmentation: ``aug_<number>_<original>.jpg`` is a copy of ``<original>.jpg``. An original
    and its copies are a group (class and name without those prefixes), whether or not the original itself is there.

    Raises:
        MedscaleError: when the folder is missing, holds no images, or a class has none: what was expected and found,
            the download command.
    """
    if source.options and not source.synthetic:
        raise MedscaleError(f"source kind skin has no options, found: {', '.join(source.options)}")
    listing = list_folder(source.path, EXPECTED)
    root = Path(str(source.path))
    by_path, unplaced = by_folders(listing, NAME)
    if not by_path:
        raise MedscaleError(
            f"{root} holds no usable images.\n  {EXPECTED}\n  Found: {listing.summary()}"
        )
    for path, row in by_path.items():
        row["label"] = class_name(row["label"])
        row["group"] = f"{row['label']}/{original(path)}"
    there = [class_name(name) for name in class_folders(listing)]
    names = [class_name(name) for name in classes] if classes is not None else sorted(set(there))
    rows, others = of_classes(list(by_path.values()), names)
    check_classes(root, names, rows, listing, EXPECTED)
    notes = [
        *_copies(rows),
        *([] if source.synthetic else [_size(len(by_path), len(set(there))), LICENCE]),
    ]
    return found(rows, [*listing.excluded, *unplaced, *others], names, notes)


def class_name(folder: str) -> str:
    """A folder's name as that of a class: ``Ba  Cellulitis`` becomes ``Ba Cellulitis``."""
    return " ".join(folder.split())


def original(path: str) -> str:
    """Name, without its ending, of the photograph that an image is, or is a copy of."""
    return COPY.sub("", PurePosixPath(path).stem)


def is_copy(path: str) -> bool:
    """Whether an image is named as an augmented copy."""
    return COPY.match(PurePosixPath(path).stem) is not None


def _copies(rows: list[dict[str, Any]]) -> list[str]:
    copied = {row["group"] for row in rows if is_copy(row["path"])}
    absent = len(copied - {row["group"] for row in rows if not is_copy(row["path"])})
    copies = sum(is_copy(row["path"]) for row in rows)
    if not copies:
        return []
    gone = f" (of which {absent} are not there themselves)" if absent else ""
    return [
        f"{copies} of the {len(rows)} image files in folders of classes are named as augmented copies "
        f"(aug_<number>_…) of {len(copied)} originals{gone}: a random split puts copies of training images into the "
        "test split, a grouped one does not."
    ]


def _size(images: int, classes: int) -> str:
    return (
        f"{images} images in {classes} classes are there; the project that published results states about 245,000 in "
        "35 classes, other users of the set count 262,874 in 34."
    )
