"""ISIC 2017, dermoscopic images with age and sex: as its archives unpack, or sorted into folders by split and class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.sections import Source
from medscale.data.download import command
from medscale.data.sources import found as f
from medscale.data.sources.folder import by_folders, of_classes
from medscale.data.sources.found import Excluded, Found, Listing, found, list_folder, read_table

NAME = "ISIC 2017"
CLASSES = ["nevus", "seborrheic_keratosis", "melanoma"]
METADATA = ("age", "sex")
SEXES = ("female", "male")
SIZES = {"train": 2000, "val": 150, "test": 600}  # images of the complete set
PARTS = {
    "training": "train",
    "validation": "val",
    "test": "test",
    "test_v2": "test",
}  # as files are named
TRUTH = re.compile(
    r"ISIC-2017_(Training|Validation|Test(?:_v2)?)_Part3_GroundTruth\.csv", re.IGNORECASE
)
TABLE = re.compile(
    r"ISIC-2017_(Training|Validation|Test(?:_v2)?)_Data_metadata\.csv", re.IGNORECASE
)
DATA = {
    "train": "ISIC-2017_Training_Data",
    "val": "ISIC-2017_Validation_Data",
    "test": "ISIC-2017_Test_v2_Data",
}
DERIVED = {
    "superpixels": "superpixels, not a photograph",
    "segmentation": "lesion mask, not a photograph",
}
AGAIN = "same image number again"
# Listed as duplicates: a training image and the test image that shows the same.
DUPLICATES = (("ISIC_0012271", "ISIC_0012152"), ("ISIC_0012175", "ISIC_0012216"))
SHARE_MISSING = (
    0.1  # a split that lacks a larger share of its listed images is an incomplete download
)
AGES = (0.0, 120.0)  # years; anything else is no age
EXPECTED = (
    f"Expected {NAME} in one of its layouts:\n"
    "    ISIC-2017_Training_Data/ISIC_*.jpg with ISIC-2017_Training_Part3_GroundTruth.csv and "
    "ISIC-2017_Training_Data_metadata.csv, likewise Validation and Test_v2\n"
    "    train|valid|test/melanoma|nevus|seborrheic_keratosis/*.jpg\n"
    f"    {command('isic2017')}\n"
    "  then unzip the archives there, or set source.path to where they are."
)

Rows = list[dict[str, Any]]


def scan(source: Source, classes: Sequence[str] | None) -> Found:
    """List ISIC 2017 in either layout, with ``age`` (years, null for unknown) and ``sex`` (null for unknown).

    Images are found by their number below any folder. There are no patient numbers; the two pairs of training and test
    images that are listed as duplicates are a group each. With the option ``allow_missing`` an incomplete download
    passes: a note says what is missing, and classes of which nothing is there are left out.

    Raises:
        MedscaleError: when the folder is missing or incomplete: what was expected and found, the download command.
    """
    names = list(classes or CLASSES)
    if unknown := [name for name in names if name not in CLASSES]:
        raise MedscaleError(
            f"the classes of {NAME} are {', '.join(CLASSES)}, not {', '.join(unknown)}"
        )
    allow_missing = _allow_missing(source)
    listing = list_folder(source.path, EXPECTED)
    root = Path(str(source.path))
    images, derived = _photographs(listing)
    truths = _tables(root, listing, TRUTH)
    if truths:
        rows, left_out, gaps = _archives(listing, images, truths)
    else:
        rows, left_out, gaps = _folders(listing, images)
    if not rows or (gaps and not allow_missing):
        raise _incomplete(root, [*gaps, listing.summary()])
    rows, others = of_classes(_with_metadata(rows, _tables(root, listing, TABLE)), names)
    there = {row["label"] for row in rows}
    gaps += [f"there is no image of class {name}" for name in names if name not in there]
    notes = [f"The download is not complete: {'; '.join(gaps)}."] if gaps else []
    notes += [*_notes(rows), *([] if source.synthetic else _size(rows))]
    excluded = [*listing.excluded, *derived, *left_out, *others]
    return found(rows, excluded, [name for name in names if name in there], notes, METADATA)


def _allow_missing(source: Source) -> bool:
    if source.synthetic:
        return False
    if unknown := [name for name in source.options if name != "allow_missing"]:
        raise MedscaleError(
            f"source kind isic2017 has the option allow_missing, found: {', '.join(unknown)}"
        )
    allowed = source.options.get("allow_missing", False)
    if not isinstance(allowed, bool):
        raise MedscaleError(f"source.options.allow_missing is true or false, not {allowed!r}")
    return allowed


def _incomplete(root: Path, what: list[str]) -> MedscaleError:
    return MedscaleError(
        f"{root} holds no complete {NAME}.\n  {EXPECTED}\n  Found: {'; '.join(what)}\n"
        "  To go on with what is there, set source.options.allow_missing to true."
    )


def _photographs(listing: Listing) -> tuple[list[str], list[Excluded]]:
    """Paths of the photographs, and the superpixel and mask images beside them as left out."""
    endings = {
        path: DERIVED.get(PurePosixPath(path).stem.lower().rpartition("_")[2])
        for path in listing.images
    }
    derived = [(path, what, "by its name") for path, what in endings.items() if what is not None]
    return [path for path, what in endings.items() if what is None], derived


def _tables(root: Path, listing: Listing, name: re.Pattern[str]) -> dict[str, Path]:
    """The tables of that name by split, wherever they are; of several the one in the outermost folder."""
    tables: dict[str, Path] = {}
    paths = [path for path, reason, _ in listing.excluded if reason == f.NO_IMAGE_NAME]
    for path in sorted(paths, key=_depth):
        if match := name.fullmatch(PurePosixPath(path).name):
            tables.setdefault(PARTS[match[1].lower()], root / path)
    return tables


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path


def _archives(
    listing: Listing, images: list[str], truths: dict[str, Path]
) -> tuple[Rows, list[Excluded], list[str]]:
    """Rows of the ground truth tables whose image is there, what is left out, and what a complete set has besides."""
    there: dict[str, str] = {}
    left_out: list[Excluded] = []
    for path in sorted(images, key=_depth):
        if (first := there.setdefault(PurePosixPath(path).stem, path)) != path:
            left_out.append((path, AGAIN, f"{first} is used"))
    table = _truth(truths)
    rows: Rows = []
    missing = table[~table["image_id"].isin(there)]
    unusable = {PurePosixPath(path).name for path, _, _ in listing.excluded}
    for number, split in zip(missing["image_id"], missing["split"], strict=True):
        if f"{number}.jpg" not in unusable:
            left_out.append(
                (f"{DATA[split]}/{number}.jpg", f.NO_FILE, f"{truths[split].name} names it")
            )
    for entry in table[table["image_id"].isin(there)].to_dict("records"):
        path, label = (
            there[entry["image_id"]],
            _label(entry["melanoma"], entry["seborrheic_keratosis"]),
        )
        if label is None:
            said = f"melanoma {entry['melanoma']}, seborrheic_keratosis {entry['seborrheic_keratosis']}"
            left_out.append((path, f.NO_LABEL, said))
        else:
            rows.append(_row(path, label, entry["split"]))
    unlisted = sorted(set(there) - set(table["image_id"]))
    left_out += [(there[number], f.NOT_LISTED, "no table names it") for number in unlisted]
    gaps = [
        f"there is no ground truth table of the {split} split"
        for split in SIZES
        if split not in truths
    ]
    for split, total in table["split"].value_counts(sort=False).items():
        absent = int((missing["split"] == split).sum())
        if absent > SHARE_MISSING * total:
            gaps.append(f"{absent} of the {total} images of the {split} split are missing")
    return rows, left_out, gaps


def _truth(truths: dict[str, Path]) -> pd.DataFrame:
    """The ground truth tables of all splits in one, with the column ``split``."""
    parts = [
        read_table(path, ["image_id", *CLASSES[1:]]).assign(split=split)
        for split, path in truths.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    if (twice := table["image_id"].duplicated()).any():
        number = table.loc[twice, "image_id"].iloc[0]
        where = ", ".join(
            sorted(str(truths[split]) for split in set(table[table["image_id"] == number]["split"]))
        )
        raise MedscaleError(f"the image {number} stands twice in {where}")
    return table


def _label(melanoma: str | None, keratosis: str | None) -> str | None:
    """Class by the two columns, 1 for yes; both 0 is a nevus; None for anything else."""
    answers = str(melanoma).removesuffix(".0"), str(keratosis).removesuffix(".0")
    return {("0", "0"): "nevus", ("0", "1"): "seborrheic_keratosis", ("1", "0"): "melanoma"}.get(
        answers
    )


def _folders(listing: Listing, images: list[str]) -> tuple[Rows, list[Excluded], list[str]]:
    """Rows of ``train|valid|test/<class>/*``, what is left out, and what a complete set has besides."""
    placed, left_out = by_folders(listing, NAME)
    photographs = set(images)
    left_out = [entry for entry in left_out if entry[0] in photographs]
    rows: Rows = []
    for path, row in placed.items():
        label = row["label"].lower().replace(" ", "_")
        if path in photographs and label in CLASSES:
            rows.append(_row(path, label, row["split_published"]))
        elif path in photographs:
            left_out.append((path, f.OTHER_CLASS, f"folder {row['label']}"))
    there = {(row["split_published"], row["label"]) for row in rows}
    wanted = [(split, label) for split in SIZES for label in CLASSES]
    return (
        rows,
        left_out,
        [
            f"there is no image in {'/'.join(pair)}"
            for pair in wanted
            if there and pair not in there
        ],
    )


def _row(path: str, label: str, split: str) -> dict[str, Any]:
    number = PurePosixPath(path).stem
    pair = next((pair for pair in DUPLICATES if number in pair), None)
    group = "+".join(pair) if pair else None
    return {"path": path, "label": label, "split_published": split, "group": group, "source": NAME}


def _with_metadata(rows: Rows, tables: dict[str, Path]) -> Rows:
    """The rows with age and sex by image number; unknown where no table says it."""
    entries: dict[str, tuple[float, str | None]] = {}
    for path in tables.values():
        table = read_table(path, ["image_id", "age_approximate", "sex"])
        ages = pd.to_numeric(table["age_approximate"], errors="coerce")
        ages = ages.where(ages.between(*AGES))
        sexes = [str(sex).lower() if str(sex).lower() in SEXES else None for sex in table["sex"]]
        entries |= dict(
            zip(table["image_id"], zip(ages.astype(float), sexes, strict=True), strict=True)
        )
    known = [entries.get(PurePosixPath(row["path"]).stem, (np.nan, None)) for row in rows]
    return [
        row | dict(zip(METADATA, values, strict=True))
        for row, values in zip(rows, known, strict=True)
    ]


def _notes(rows: Rows) -> list[str]:
    ages, sexes = (sum(not pd.isna(row[name]) for row in rows) for name in METADATA)
    notes = [
        f"Of the {len(rows)} images listed the age is known for {ages}, the sex for {sexes}; no patient numbers are "
        "published."
    ]
    counts = Counter(row["group"] for row in rows)
    pairs = [
        f"{first} and {second}" for first, second in DUPLICATES if counts[f"{first}+{second}"] == 2
    ]
    if pairs:
        notes.append(
            f"Listed as duplicates, and each pair a group: {'; '.join(pairs)}. As published, the first of a pair is in "
            "the training split and the second in the test split."
        )
    return notes


def _size(rows: Rows) -> list[str]:
    complete = sum(SIZES.values())
    return (
        [f"{len(rows)} images are there of the {complete} of the complete {NAME}."]
        if len(rows) < complete
        else []
    )
