"""SMDG-19, fundus photographs of 19 public sets: as `fundus-pytorch`, or as the parent set with its CSV."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.sections import Source
from medscale.data.download import command
from medscale.data.sources import found as f
from medscale.data.sources.found import Excluded, Found, Listing, found, list_folder, read_table

CLASSES = ["normal", "glaucoma"]
LABELS = {"0": "normal", "1": "glaucoma"}
SUSPECT = "suspect"
TABLES = ("metadata - standardized.csv", "metadata.csv")
METADATA = ("sex", "age", "eye")
SHARE_MISSING = (
    0.01  # a parent set that lacks a larger share of its listed images is an incomplete download
)
FUNDUS_PYTORCH = 17_242  # images in the complete fundus-pytorch
EXPECTED = (
    "Expected SMDG-19 in one of its layouts:\n"
    f"    train|val|test/0|1/*.png (0 normal, 1 glaucoma): {command('smdg')}\n"
    "    metadata.csv and full-fundus/full-fundus/*.png: "
    "kaggle datasets download -d deathtrooper/multichannel-glaucoma-benchmark-dataset\n"
    "  then unzip it there, or set source.path to where it is."
)


def scan(source: Source, classes: Sequence[str] | None) -> Found:
    """List SMDG-19 in either layout; suspects are left out and counted.

    A patient is known for PAPILA, ODIR (the number in ``original_name``, the same over its three parts) and CRFO where
    the parent's CSV is there, in `fundus-pytorch` too if it is put beside; other images have no patient.

    Raises:
        MedscaleError: when the folder is missing or incomplete: what was expected and found, the download command.
    """
    if classes is not None and sorted(classes) != sorted(CLASSES):
        raise MedscaleError(
            f"the classes of SMDG-19 are {', '.join(CLASSES)}, not {', '.join(classes)}"
        )
    if source.options and not source.synthetic:
        raise MedscaleError(f"source kind smdg has no options, found: {', '.join(source.options)}")
    listing = list_folder(source.path, EXPECTED)
    root = Path(str(source.path))
    table = _table(root, listing)
    if any(name in f.SPLITS for name in listing.folders):
        rows, left_out = _fundus_pytorch(root, listing, table)
    elif table is not None:
        rows, left_out = _parent(root, listing, table)
    else:
        raise _incomplete(root, listing.summary())
    notes = []
    if table is None and not source.synthetic and len(rows) < FUNDUS_PYTORCH:
        notes.append(
            f"{len(rows)} images are there of the {FUNDUS_PYTORCH} of the complete fundus-pytorch."
        )
    if suspects := sum(reason == SUSPECT for _, reason, _ in left_out):
        notes.append(
            f"Images of suspects (neither normal nor glaucoma), which are left out: {suspects}."
        )
    return found(rows, [*listing.excluded, *left_out], list(classes or CLASSES), notes, METADATA)


def source_set(name: str) -> str:
    """Source set of an image by its name: ``OIA-ODIR-TRAIN-12.png`` comes from ``OIA-ODIR-TRAIN``."""
    match = re.fullmatch(r"(.+)-\d+", PurePosixPath(name).stem)
    return match[1] if match else "unknown"


def patient(source: str, original: str | None, patient_id: str | None) -> str | None:
    """Patient by the set's own number or by the original file's name; None where neither tells it."""
    if patient_id is not None:
        return f"{source}:{patient_id}"
    if (
        original is not None
        and "ODIR" in source
        and (match := re.match(r"(\d+)_(left|right)", original))
    ):
        return f"ODIR:{match[1]}"
    if (
        original is not None
        and source.startswith("CRFO")
        and (match := re.match(r"(.+)-(Left|Right) Eye", original))
    ):
        return f"CRFO:{match[1]}"
    return None


def _incomplete(root: Path, what: str) -> MedscaleError:
    return MedscaleError(f"{root} holds no complete SMDG-19.\n  {EXPECTED}\n  Found: {what}")


def _table(root: Path, listing: Listing) -> pd.DataFrame | None:
    """The parent set's CSV by image name, if it is there."""
    places = [folder / name for folder in (root, root / listing.base) for name in TABLES]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        return None
    table = read_table(path, ["names", "types", "fundus"])
    for column in ("original_name", "patient_id", *METADATA):
        if column not in table:
            table[column] = None
    for column in ("names", "fundus"):
        if (twice := table[column].dropna().duplicated()).any():
            example = table[column].dropna()[twice].iloc[0]
            raise MedscaleError(
                f"{path}: {example} stands in {int(twice.sum()) + 1} rows of the column {column}"
            )
    return table.assign(age=pd.to_numeric(table["age"], errors="coerce")).set_index(
        "names", drop=False
    )


def _row(path: str, label: str, split: str | None, entry: Mapping[Hashable, Any]) -> dict[str, Any]:
    source = source_set(path)
    group = patient(source, entry.get("original_name"), entry.get("patient_id"))
    row = {"path": path, "label": label, "split_published": split, "group": group, "source": source}
    return row | {name: entry.get(name) for name in METADATA}


def _fundus_pytorch(
    root: Path, listing: Listing, table: pd.DataFrame | None
) -> tuple[list[dict[str, Any]], list[Excluded]]:
    """Rows of ``train|val|test/0|1/*``, with metadata by image name where the parent's CSV is there."""
    entries = {} if table is None else {str(k): v for k, v in table.to_dict("index").items()}
    rows: list[dict[str, Any]] = []
    left_out: list[Excluded] = []
    for path in listing.images:
        parts = listing.parts(path)
        split = f.SPLITS.get(parts[0]) if len(parts) == 3 else None
        if split is None:
            left_out.append((path, f.NO_FOLDER, "stands not in train|val|test/0|1"))
        elif parts[1] not in LABELS:
            left_out.append(
                (path, SUSPECT if parts[1] == "-1" else f.OTHER_CLASS, f"folder {parts[1]}")
            )
        else:
            rows.append(
                _row(path, LABELS[parts[1]], split, entries.get(PurePosixPath(path).stem, {}))
            )
    there = {(row["split_published"], row["label"]) for row in rows}
    wanted = [(split, number) for split in ("train", "val", "test") for number in LABELS]
    if missing := [
        f"{split}/{number}" for split, number in wanted if (split, LABELS[number]) not in there
    ]:
        raise _incomplete(root, f"no images in {', '.join(missing)}; {listing.summary()}")
    return rows, left_out


def _parent(
    root: Path, listing: Listing, table: pd.DataFrame
) -> tuple[list[dict[str, Any]], list[Excluded]]:
    """Rows of the parent's CSV whose image is below full-fundus/, which the archive has doubled."""
    on_disk = {
        PurePosixPath(path).name: path
        for path in listing.images
        if "full-fundus" in PurePosixPath(path).parts
    }
    rows: list[dict[str, Any]] = []
    left_out: list[Excluded] = []
    listed = set()
    for entry in table.to_dict("records"):
        fundus = entry["fundus"]
        path = on_disk.get(PurePosixPath(fundus).name) if fundus else None
        listed.add(path)
        types = str(entry["types"] or "").removesuffix(".0")
        if path is None:
            left_out.append(
                (
                    f.same_name(fundus or entry["names"]),
                    f.NO_FILE,
                    "named by the CSV, but not there",
                )
            )
        elif types == "-1":
            left_out.append((path, SUSPECT, "types is -1 in the CSV"))
        elif types not in LABELS:
            left_out.append((path, f.NO_LABEL, f"types is {entry['types']!r} in the CSV"))
        else:
            rows.append(_row(path, LABELS[types], None, entry))
    missing = sum(reason == f.NO_FILE for _, reason, _ in left_out)
    if missing > SHARE_MISSING * len(table):
        raise _incomplete(
            root,
            f"{missing} of the {len(table)} images that the CSV lists are missing; {listing.summary()}",
        )
    left_out += [
        (path, f.NOT_LISTED, "the CSV does not name it")
        for path in listing.images
        if path not in listed
    ]
    return rows, left_out
