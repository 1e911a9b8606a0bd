"""SMDG-19, fundus photographs of 19 public sets.

Two editions are supported: `fundus-pytorch`, and the parent set with its CSV file.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data import patients
from medscale.data.download import Kaggle, command_line
from medscale.data.inventory import (
    NO_FILE,
    NO_FOLDER,
    NO_LABEL,
    NOT_LISTED,
    OTHER_CLASS,
    SPLIT_OF_FOLDER,
    Excluded,
    Inventory,
    Row,
    image_row,
    make_inventory,
)
from medscale.data.kind import ALL, DatasetKind, Edition
from medscale.data.listing import Listing, list_folder, normalized_path, read_table
from medscale.data.settings import SPLITS, Datasheet, Source

NAME = "SMDG-19"
DOWNLOAD = Kaggle("sabari50312/fundus-pytorch")
CLASSES = ["normal", "glaucoma"]
LABELS = {"0": "normal", "1": "glaucoma"}  # class by folder name, and by `types` of the CSV
SUSPECT = "suspect"  # reason in audit.csv
TABLES = ("metadata - standardized.csv", "metadata.csv")
METADATA = ("sex", "age", "eye")
# A parent set that lacks a larger share of its listed images is an incomplete download.
SHARE_MISSING = 0.01
FUNDUS_PYTORCH = 17_242  # images in the complete fundus-pytorch
EXPECTED = (
    "Expected SMDG-19 in one of its layouts:\n"
    f"    train|val|test/0|1/*.png (0 normal, 1 glaucoma): {command_line(DOWNLOAD)}\n"
    "    metadata.csv and full-fundus/full-fundus/*.png: "
    "kaggle datasets download -d deathtrooper/multichannel-glaucoma-benchmark-dataset\n"
    "  then unzip it there, or set source.path to its folder."
)


def scan(source: Source, classes: Sequence[str] | None) -> Inventory:
    """List SMDG-19 in either edition; suspects are left out and counted.

    If the parent set's CSV is in the raw folder, of either edition, patients are known for PAPILA,
    CRFO and ODIR (by the number in ``original_name``, which is the same in its three parts).

    Raises:
        MedscaleError: when the folder is missing or incomplete, or the classes do not fit.
    """
    if classes is not None and sorted(classes) != sorted(CLASSES):
        raise MedscaleError(
            f"the classes of {NAME} are {', '.join(CLASSES)}, not {', '.join(classes)}"
        )
    listing = list_folder(source.path, EXPECTED)
    table = _read_parent_table(listing)
    if any(name in SPLIT_OF_FOLDER for name in listing.folders):
        rows, left_out = _fundus_pytorch(listing, table)
    elif table is not None:
        rows, left_out = _parent_set(listing, table)
    else:
        raise listing.incomplete(NAME, EXPECTED)
    notes = []
    if table is None and not source.synthetic and len(rows) < FUNDUS_PYTORCH:
        notes.append(
            f"{len(rows)} images are present of the {FUNDUS_PYTORCH} of the complete "
            "fundus-pytorch."
        )
    if suspects := sum(reason == SUSPECT for _, reason, _ in left_out):
        notes.append(
            f"Images of suspects (neither normal nor glaucoma), which are left out: {suspects}."
        )
    excluded = [*listing.excluded, *left_out]
    has_patients = any(row["group"] is not None for row in rows)
    return make_inventory(
        rows,
        excluded,
        list(classes or CLASSES),
        notes,
        METADATA,
        "the parent set's CSV" if has_patients else None,
    )


def source_set(name: str) -> str:
    """Return an image's source set: ``OIA-ODIR-TRAIN`` for ``OIA-ODIR-TRAIN-12.png``."""
    match = re.fullmatch(r"(.+)-\d+", PurePosixPath(name).stem)
    return match[1] if match else "unknown"


def patient(source: str, original: str | None, patient_id: str | None) -> str | None:
    """Return the patient by the set's number or by the original file's name; None if unknown."""
    if not patients.is_missing(patient_id, name=True):
        return f"{source}:{patient_id}"
    original = original or ""
    if "ODIR" in source and (match := re.match(r"(\d+)_(left|right)", original)):
        return f"ODIR:{match[1]}"
    if source.startswith("CRFO") and (match := re.match(r"(.+)-(Left|Right) Eye", original)):
        return f"CRFO:{match[1]}"
    return None


def _read_parent_table(listing: Listing) -> pd.DataFrame | None:
    """Return the parent set's CSV with image names as index; None if there is no such file."""
    path = listing.take_file(*TABLES)
    if path is None:
        return None
    table = read_table(path, ["names", "types", "fundus"])
    for column in ("original_name", "patient_id", *METADATA):
        if column not in table:
            table[column] = None
    for column in ("names", "fundus"):
        names = table[column].dropna()
        if (repeated := names.duplicated()).any():
            raise MedscaleError(
                f"{path}: {names[repeated].iloc[0]} occurs in {int(repeated.sum()) + 1} rows of "
                f"the column {column}; correct the table"
            )
    ages = pd.to_numeric(table["age"], errors="coerce")
    return table.assign(age=ages).set_index("names", drop=False)


def _row(path: str, label: str, split: str | None, entry: Mapping[Hashable, Any]) -> Row:
    source = source_set(path)
    group = patient(source, entry.get("original_name"), entry.get("patient_id"))
    metadata = {name: entry.get(name) for name in METADATA}
    return image_row(path, label, source, split, group, **metadata)


def _fundus_pytorch(
    listing: Listing, table: pd.DataFrame | None
) -> tuple[list[Row], list[Excluded]]:
    """Return rows of ``train|val|test/0|1/*`` and left-out images.

    Metadata come from the parent's CSV, by image name, if it is in the raw folder.
    """
    entries = {} if table is None else {str(k): v for k, v in table.to_dict("index").items()}
    rows: list[Row] = []
    left_out: list[Excluded] = []
    for path in listing.images:
        parts = listing.parts(path)
        split = SPLIT_OF_FOLDER.get(parts[0]) if len(parts) == 3 else None
        if split is None:
            left_out.append((path, NO_FOLDER, "not in train|val|test/0|1"))
        elif parts[1] not in LABELS:
            reason = SUSPECT if parts[1] == "-1" else OTHER_CLASS
            left_out.append((path, reason, f"folder {parts[1]}"))
        else:
            entry = entries.get(PurePosixPath(path).stem, {})
            rows.append(_row(path, LABELS[parts[1]], split, entry))
    folders = {(row["split_published"], row["label"]) for row in rows}
    missing = [
        f"{split}/{number}"
        for split in SPLITS
        for number, label in LABELS.items()
        if (split, label) not in folders
    ]
    if missing:
        raise listing.incomplete(NAME, EXPECTED, f"no images in {', '.join(missing)}")
    return rows, left_out


def _parent_set(listing: Listing, table: pd.DataFrame) -> tuple[list[Row], list[Excluded]]:
    """Return rows of the CSV whose image is below full-fundus/, and left-out files and entries.

    Some archives contain that folder within itself, so images are found by their name.
    """
    images = {
        PurePosixPath(path).name: path
        for path in listing.images
        if "full-fundus" in PurePosixPath(path).parts
    }
    rows: list[Row] = []
    left_out: list[Excluded] = []
    listed = set()
    for entry in table.to_dict("records"):
        fundus = entry["fundus"]
        path = images.get(PurePosixPath(fundus).name) if fundus else None
        listed.add(path)
        types = str(entry["types"] or "").removesuffix(".0")
        if path is None:
            name = normalized_path(fundus or entry["names"])
            left_out.append((name, NO_FILE, "listed in the CSV, but missing"))
        elif types == "-1":
            left_out.append((path, SUSPECT, "types is -1 in the CSV"))
        elif types not in LABELS:
            left_out.append((path, NO_LABEL, f"types is {entry['types']!r} in the CSV"))
        else:
            rows.append(_row(path, LABELS[types], None, entry))
    missing = sum(reason == NO_FILE for _, reason, _ in left_out)
    if missing > SHARE_MISSING * len(table):
        fault = f"{missing} of the {len(table)} images that the CSV lists are missing"
        raise listing.incomplete(NAME, EXPECTED, fault)
    unlisted = [path for path in listing.images if path not in listed]
    return rows, [*left_out, *((p, NOT_LISTED, "the CSV does not name it") for p in unlisted)]


KIND = DatasetKind(
    scan=scan,
    download=DOWNLOAD,
    editions=(
        Edition(
            "SMDG-19, parent set",
            {(ALL, "normal"): 7299, (ALL, "glaucoma"): 4617},
            "*full-fundus/*",
            {"metadata*.csv": "labels and patients"},
        ),
        Edition(
            "SMDG-19 as fundus-pytorch",
            {
                ("train", "normal"): 5293,
                ("train", "glaucoma"): 3328,
                ("val", ALL): 5747,
                ("test", ALL): 2874,
                (ALL, "normal"): 10_586,
                (ALL, "glaucoma"): 6656,
            },
        ),
    ),
    demo="fundus",
    paper=(
        r"SMDG-19 \cite{smdg19}, which merges nineteen public sets of fundus photographs; the same "
        "eye can stand in several of its splits."
    ),
    datasheet=Datasheet(
        name="SMDG-19, standardized fundus glaucoma dataset (edition fundus-pytorch)",
        origin="Nineteen public sets of fundus photographs, merged and brought to 512x512 pixels",
        creators="R. Kiefer, M. Abid, M. R. Ardali, J. Steen and E. Amjadian",
        citation="Kiefer et al. (2023), SMDG, a standardized fundus glaucoma dataset, Kaggle, "
        "doi:10.34740/kaggle/ds/2329670",
        purpose="One common form for glaucoma images of many public sets",
        instances="Colour fundus photographs with a label, normal or glaucoma; suspects of the "
        "parent set are left out and counted",
        labels="Those of the merged sets, whose criteria differ",
        licence="Each merged set has separate terms; read them where the sets were published "
        "before images are passed on",
        known_problems=[
            "In the edition fundus-pytorch, validation and test together repeat the training "
            "images under other names",
            "All images of the source EyePACS are glaucoma, so that the source can betray the "
            "label",
            "The same eye or patient can stand in several of the merged sets; only the name's "
            "prefix tells the source",
        ],
    ),
)
