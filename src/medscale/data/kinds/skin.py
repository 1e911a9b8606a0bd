"""The Massive Skin Disease Balanced Dataset: clinical photographs, a folder per class.

The publisher balanced the classes by augmented copies, which are in the same folders as the
originals.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from medscale.data.class_folders import (
    check_classes,
    class_folders,
    no_usable_images,
    rows_by_folder,
    select_classes,
)
from medscale.data.download import Kaggle, command_line
from medscale.data.inventory import Inventory, Row, make_inventory
from medscale.data.kind import ALL, DatasetKind, Edition
from medscale.data.listing import list_folder
from medscale.data.settings import Datasheet, Source

NAME = "Massive Skin Disease Balanced Dataset"
DOWNLOAD = Kaggle("muhammadabdulsami/massive-skin-disease-balanced-dataset")
COPY = re.compile(r"^(?:aug_\d+_)+(?=.)", re.IGNORECASE)  # prefixes of a copy's file name
EXPECTED = (
    f"Expected the {NAME}: [balanced_dataset/][balanced_dataset/]<class>/*.jpg\n"
    f"    {command_line(DOWNLOAD)}\n"
    "  then unzip it there, or set source.path to its folder."
)
LICENCE_NOTE = (
    f"The {NAME} is offered under the MIT licence, but photographs in it carry the watermarks of "
    "other publishers, which makes that licence doubtful."
)


def scan(source: Source, classes: list[str] | None) -> Inventory:
    """List the dataset; the folders are the classes, with single spaces in their names.

    ``aug_<number>_<original>.jpg`` is an augmented copy of ``<original>.jpg``. An original and its
    copies share a group (class and name without prefixes), even if the original is missing.

    Raises:
        MedscaleError: when the folder is missing or has no images, or a class has none.
    """
    listing = list_folder(source.path, EXPECTED)
    by_path, left_out = rows_by_folder(listing, NAME)
    if not by_path:
        raise no_usable_images(listing, EXPECTED)
    for path, row in by_path.items():
        row["label"] = class_name(row["label"])
        row["group"] = f"{row['label']}/{original(path)}"
    folders = {class_name(name) for name in class_folders(listing)}
    names = sorted(folders) if classes is None else [class_name(name) for name in classes]
    rows, other_classes = select_classes(list(by_path.values()), names)
    check_classes(listing, names, rows, EXPECTED)
    notes = _note_on_copies(rows)
    if not source.synthetic:
        notes += [_note_on_size(len(by_path), len(folders)), LICENCE_NOTE]
    return make_inventory(rows, [*listing.excluded, *left_out, *other_classes], names, notes)


def class_name(folder: str) -> str:
    """Return the class name of a folder: ``Ba  Cellulitis`` becomes ``Ba Cellulitis``."""
    return " ".join(folder.split())


def original(path: str) -> str:
    """Return the stem of the photograph that an image is, or is a copy of."""
    return COPY.sub("", PurePosixPath(path).stem)


def is_copy(path: str) -> bool:
    """Return whether an image has the name of an augmented copy."""
    return COPY.match(PurePosixPath(path).stem) is not None


def _note_on_copies(rows: list[Row]) -> list[str]:
    copies = [row["group"] for row in rows if is_copy(row["path"])]
    if not copies:
        return []
    absent = len(set(copies) - {row["group"] for row in rows if not is_copy(row["path"])})
    lacking = f" (of which {absent} are missing)" if absent else ""
    return [
        f"{len(copies)} of the {len(rows)} image files in folders of classes are named as "
        f"augmented copies (aug_<number>_…) of {len(set(copies))} originals{lacking}: a random "
        "split puts copies of training images into the test split, a grouped one does not."
    ]


def _note_on_size(images: int, classes: int) -> str:
    return (
        f"{images} images in {classes} classes are present; the project that published results "
        "states about 245,000 in 35 classes, other users of the set count 262,874 in 34."
    )


KIND = DatasetKind(
    scan=scan,
    download=DOWNLOAD,
    editions=(Edition(NAME, {(ALL, ALL): 245_000}, approximate=True, classes=34),),
    demo="skin",
    paper=(
        rf"the {NAME} \cite{{skin35}}: clinical photographs, one folder for each class. It was "
        "balanced by augmentation, so that copies of one photograph stand under several names; all "
        "copies of one photograph are kept on one side of a split. Watermarks on some photographs "
        "make its stated licence (MIT) doubtful."
    ),
    datasheet=Datasheet(
        name=NAME,
        origin="Clinical photographs, one folder for each class, under the address "
        f"{DOWNLOAD.slug} at Kaggle",
        creators="Published by M. Abdul Sami; the photographers are not named",
        citation=f"Abdul Sami (2024), {NAME}, Kaggle",
        instances="Photographs of skin, hair and nails with the name of a disease, balanced by "
        "augmented copies",
        labels="Names of folders; the method of diagnosis is not published",
        licence="MIT as stated by the publisher; watermarks on some photographs make that doubtful",
        known_problems=[
            "Copies made by augmentation stand next to their originals (aug_<number>_<original>), "
            "so that a random split leaks",
            "No patients are named; copies and near-duplicates are grouped instead",
            "Counts of classes and images differ between those who describe the set; the study "
            "takes the folders that it finds",
        ],
    ),
)
