"""ISIC 2017, part 3: dermoscopic images with age and sex.

Two layouts are supported: the unpacked archives, and folders by split and class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data.class_folders import rows_by_folder, select_classes
from medscale.data.download import Archives, command_line
from medscale.data.inventory import (
    NO_FILE,
    NO_IMAGE_NAME,
    NO_LABEL,
    NOT_LISTED,
    OTHER_CLASS,
    Excluded,
    Inventory,
    Row,
    image_row,
    make_inventory,
)
from medscale.data.kind import DatasetKind, Edition
from medscale.data.listing import Listing, list_folder, read_table
from medscale.data.settings import Datasheet, Source

NAME = "ISIC 2017"
DOWNLOAD = Archives(
    "https://isic-challenge-data.s3.amazonaws.com/2017/ISIC-2017_",
    (("Training", "Validation", "Test_v2"), ("_Data.zip", "_Part3_GroundTruth.csv")),
)
CLASSES = ["nevus", "seborrheic_keratosis", "melanoma"]
ANSWERS = ["melanoma", "seborrheic_keratosis"]  # columns of the ground truth: 1 for yes
LABELS = {  # class by the answers
    ("0", "0"): "nevus",
    ("0", "1"): "seborrheic_keratosis",
    ("1", "0"): "melanoma",
}
METADATA = ("age", "sex")
SEXES = ("female", "male")
# Images of the complete dataset by split, in the order of CLASSES.
COMPLETE = {"train": (1372, 254, 374), "val": (78, 42, 30), "test": (393, 90, 117)}
PARTS = {"training": "train", "validation": "val", "test": "test", "test_v2": "test"}
PART_NAME = r"ISIC-2017_(Training|Validation|Test(?:_v2)?)"  # in file names
TRUTH = re.compile(PART_NAME + r"_Part3_GroundTruth\.csv", re.IGNORECASE)
TABLE = re.compile(PART_NAME + r"_Data_metadata\.csv", re.IGNORECASE)
FOLDERS = {
    "train": "ISIC-2017_Training_Data",
    "val": "ISIC-2017_Validation_Data",
    "test": "ISIC-2017_Test_v2_Data",
}
DERIVED = {  # reason in audit.csv by the end of a derived image's name
    "superpixels": "superpixels, not a photograph",
    "segmentation": "lesion mask, not a photograph",
}
REPEATED = "same image number again"  # reason in audit.csv
# Listed as duplicates by the publisher: a training image and the same image in the test split.
DUPLICATES = (("ISIC_0012271", "ISIC_0012152"), ("ISIC_0012175", "ISIC_0012216"))
# A split that lacks a larger share of its listed images is an incomplete download.
SHARE_MISSING = 0.1
AGES = (0.0, 120.0)  # years; other numbers are not ages
EXPECTED = (
    f"Expected {NAME} in one of its layouts:\n"
    "    ISIC-2017_Training_Data/ISIC_*.jpg with ISIC-2017_Training_Part3_GroundTruth.csv and "
    "ISIC-2017_Training_Data_metadata.csv, likewise Validation and Test_v2\n"
    "    train|valid|test/melanoma|nevus|seborrheic_keratosis/*.jpg\n"
    f"    {command_line(DOWNLOAD)}\n"
    "  then unzip the archives there, or set source.path to their folder. To read an incomplete "
    "download, set source.options.allow_missing to true."
)


def scan(source: Source, classes: Sequence[str] | None) -> Inventory:
    """List ISIC 2017 in either layout, with ``age`` (years) and ``sex``, null if unknown.

    Images are found by their number in any folder. Patients are not published; each of the two
    pairs of published duplicates is a group. With the option ``allow_missing``, an incomplete
    download is accepted: a note names the missing parts, and classes without images are left out.

    Raises:
        MedscaleError: when the folder is missing or incomplete, or the classes do not fit.
    """
    names = list(classes or CLASSES)
    if unknown := [name for name in names if name not in CLASSES]:
        raise MedscaleError(
            f"the classes of {NAME} are {', '.join(CLASSES)}, not {', '.join(unknown)}"
        )
    listing = list_folder(source.path, EXPECTED)
    photographs, derived = _separate_derived(listing)
    if truths := _find_tables(listing, TRUTH):
        rows, left_out, gaps = _archives(listing, photographs, truths)
    else:
        rows, left_out, gaps = _folders(listing, photographs)
    if not rows or (gaps and not source.options["allow_missing"]):
        raise listing.incomplete(NAME, EXPECTED, *gaps)
    rows, other_classes = select_classes(_with_metadata(rows, _find_tables(listing, TABLE)), names)
    labels = {row["label"] for row in rows}
    gaps += [f"there is no image of class {name}" for name in names if name not in labels]
    notes = [f"The download is not complete: {'; '.join(gaps)}."] if gaps else []
    notes += _notes(rows)
    complete = sum(map(sum, COMPLETE.values()))
    if len(rows) < complete and not source.synthetic:
        notes.append(f"{len(rows)} images are present of the {complete} of the complete {NAME}.")
    excluded = [*listing.excluded, *derived, *left_out, *other_classes]
    names = [name for name in names if name in labels]
    return make_inventory(rows, excluded, names, notes, METADATA)


def _separate_derived(listing: Listing) -> tuple[list[str], list[Excluded]]:
    """Return the paths of the photographs, and superpixel and mask images as left out."""
    reasons = {
        path: DERIVED.get(PurePosixPath(path).stem.lower().rpartition("_")[2])
        for path in listing.images
    }
    derived = [(path, reason, "by its name") for path, reason in reasons.items() if reason]
    return [path for path, reason in reasons.items() if not reason], derived


def _find_tables(listing: Listing, name: re.Pattern[str]) -> dict[str, Path]:
    """Return the tables with a name by split, from any folder; of several, the outermost."""
    tables: dict[str, Path] = {}
    paths = [path for path, reason, _ in listing.excluded if reason == NO_IMAGE_NAME]
    for path in sorted(paths, key=_depth):
        if match := name.fullmatch(PurePosixPath(path).name):
            tables.setdefault(PARTS[match[1].lower()], listing.root / path)
    return {split: listing.take(file) for split, file in tables.items()}


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path


def _archives(
    listing: Listing, photographs: list[str], truths: Mapping[str, Path]
) -> tuple[list[Row], list[Excluded], list[str]]:
    """Return rows of the ground truth tables, left-out files and entries, and gaps."""
    by_number: dict[str, str] = {}
    left_out: list[Excluded] = []
    for path in sorted(photographs, key=_depth):
        if (first := by_number.setdefault(PurePosixPath(path).stem, path)) != path:
            left_out.append((path, REPEATED, f"{first} is used"))
    table = _read_truth(truths)
    present = table["image_id"].isin(by_number)
    damaged = {PurePosixPath(path).name for path, _, _ in listing.excluded}  # such as broken links
    left_out += [
        (f"{FOLDERS[split]}/{number}.jpg", NO_FILE, f"{truths[split].name} names it")
        for number, split in table.loc[~present, ["image_id", "split"]].itertuples(index=False)
        if f"{number}.jpg" not in damaged
    ]
    rows: list[Row] = []
    for entry in table[present].to_dict("records"):
        path = by_number[entry["image_id"]]
        melanoma, keratosis = (str(entry[name]).removesuffix(".0") for name in ANSWERS)
        label = LABELS.get((melanoma, keratosis))
        if label is None:
            detail = ", ".join(f"{name} {entry[name]}" for name in ANSWERS)
            left_out.append((path, NO_LABEL, detail))
        else:
            rows.append(_row(path, label, entry["split"]))
    unlisted = sorted(set(by_number) - set(table["image_id"]))
    left_out += [(by_number[number], NOT_LISTED, "no table names it") for number in unlisted]
    gaps = [
        f"there is no ground truth table of the {split} split"
        for split in COMPLETE
        if split not in truths
    ]
    for split, total in table["split"].value_counts(sort=False).items():
        absent = int((table.loc[~present, "split"] == split).sum())
        if absent > SHARE_MISSING * total:
            gaps.append(f"{absent} of the {total} images of the {split} split are missing")
    return rows, left_out, gaps


def _read_truth(truths: Mapping[str, Path]) -> pd.DataFrame:
    """Return the ground truth tables of all splits as one, with the column ``split``."""
    parts = [
        read_table(path, ["image_id", *ANSWERS]).assign(split=split)
        for split, path in truths.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    if (repeated := table["image_id"].duplicated()).any():
        number = table.loc[repeated, "image_id"].iloc[0]
        files = {str(truths[split]) for split in table.loc[table["image_id"] == number, "split"]}
        raise MedscaleError(
            f"the image {number} occurs twice in {', '.join(sorted(files))}; download it again"
        )
    return table


def _folders(
    listing: Listing, photographs: list[str]
) -> tuple[list[Row], list[Excluded], list[str]]:
    """Return rows of ``train|valid|test/<class>/*``, left-out images, and gaps of the download."""
    by_path, outside = rows_by_folder(listing, NAME)
    derived = set(listing.images) - set(photographs)
    left_out = [entry for entry in outside if entry[0] not in derived]
    rows: list[Row] = []
    for path in by_path.keys() - derived:
        folder = by_path[path]["label"]
        label = folder.lower().replace(" ", "_")
        if label in CLASSES:
            rows.append(_row(path, label, by_path[path]["split_published"]))
        else:
            left_out.append((path, OTHER_CLASS, f"folder {folder}"))
    present = {(row["split_published"], row["label"]) for row in rows}
    expected = [(split, label) for split in COMPLETE for label in CLASSES]
    gaps = [f"there is no image in {'/'.join(pair)}" for pair in expected if pair not in present]
    return rows, left_out, gaps if rows else []


def _row(path: str, label: str, split: str) -> Row:
    number = PurePosixPath(path).stem
    pair = next((pair for pair in DUPLICATES if number in pair), None)
    return image_row(path, label, NAME, split, "+".join(pair) if pair else None)


def _with_metadata(rows: list[Row], tables: Mapping[str, Path]) -> list[Row]:
    """Return the rows with age and sex by image number, unknown if no table gives them."""
    entries: dict[str, tuple[float, str | None]] = {}
    for path in tables.values():
        table = read_table(path, ["image_id", "age_approximate", "sex"])
        ages = pd.to_numeric(table["age_approximate"], errors="coerce")
        ages = ages.where(ages.between(*AGES)).astype(float)
        sexes = [str(sex).lower() if str(sex).lower() in SEXES else None for sex in table["sex"]]
        entries |= dict(zip(table["image_id"], zip(ages, sexes, strict=True), strict=True))
    values = [entries.get(PurePosixPath(row["path"]).stem, (np.nan, None)) for row in rows]
    return [
        row | dict(zip(METADATA, pair, strict=True)) for row, pair in zip(rows, values, strict=True)
    ]


def _notes(rows: list[Row]) -> list[str]:
    ages, sexes = (sum(not pd.isna(row[name]) for row in rows) for name in METADATA)
    notes = [
        f"Of the {len(rows)} images listed the age is known for {ages}, the sex for {sexes}; no "
        "patient numbers are published."
    ]
    counts = Counter(row["group"] for row in rows)
    pairs = [f"{a} and {b}" for a, b in DUPLICATES if counts[f"{a}+{b}"] == 2]
    if pairs:
        notes.append(
            f"Listed as duplicates, and each pair a group: {'; '.join(pairs)}. As published, the "
            "first of a pair is in the training split and the second in the test split."
        )
    return notes


def _edition(path: str, files: Mapping[str, str]) -> Edition:
    images = {
        (split, label): count
        for split, counts in COMPLETE.items()
        for label, count in zip(CLASSES, counts, strict=True)
    }
    return Edition(NAME, images, path, files)


KIND = DatasetKind(
    scan=scan,
    download=DOWNLOAD,
    editions=(
        _edition(
            "*ISIC-2017_*",
            {
                f"ISIC-2017_{part}*_metadata.csv": "age and sex"
                for part in ("Training", "Validation", "Test")
            },
        ),
        _edition("*", {}),
    ),
    options={"allow_missing": (False, True)},
    check_options={"allow_missing": True},  # to count the images of an incomplete download
    demo="dermoscopy",
    paper=(
        r"that of the ISIC 2017 challenge \cite{codella2018isic}, part 3: dermoscopic photographs "
        "of melanomas, nevi and seborrheic keratoses, with age and sex where they are known."
    ),
    datasheet=Datasheet(
        name="ISIC 2017, part 3 (lesion classification)",
        origin="Dermoscopic images of the International Skin Imaging Collaboration, challenge at "
        "ISBI 2017",
        creators="International Skin Imaging Collaboration",
        citation="Codella et al. (2018), Skin lesion analysis toward melanoma detection, ISBI, "
        "doi:10.1109/ISBI.2018.8363547",
        purpose="A challenge in the detection of melanoma",
        instances="Dermoscopic photographs of melanoma, seborrheic keratosis or nevus, with age "
        "and sex where they are known",
        labels="Published with the challenge, two columns an image (melanoma, seborrheic "
        "keratosis); neither means nevus",
        licence="CC-0",
        known_problems=[
            "Two training images are listed as duplicates of test images (ISIC_0012271, "
            "ISIC_0012175)",
            "No patient numbers are published, so that images of one patient cannot be kept "
            "together",
            "Classes are uneven (374 melanomas, 254 seborrheic keratoses and 1,372 nevi for "
            "training)",
        ],
    ),
)
