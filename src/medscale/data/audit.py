"""Reads every file once (digest, size, fault, thumbnail); finds copies, look-alikes, conflicting labels and leaks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client

from medscale.data import lookalike
from medscale.data.cluster import run_all
from medscale.data.images import Unreadable, decode, header, jpeg_size, read_bytes
from medscale.data.preprocess import reduction
from medscale.data.sources.found import CONFLICT

LARGEST = 256  # images a Dask task
SMALLEST = 32  # images that a local worker is started for
AUDIT = ["path", "action", "reason", "detail"]
EXCLUDED, KEPT = "excluded", "kept"
DUPLICATE = "duplicate"
LOOK_ALIKE, LOOK_ALIKE_CONFLICT = "near-duplicate", "near-duplicate with another label"
LEAK, LEAK_PUBLISHED = "leak between splits", "leak between published splits"
NO_SPLIT = "no published split"
BALANCED = "balanced away"
ODD_HEADER = "odd header"
HEADER_TYPES = {"age": "float64", "sex": "str", "view": "str", "remark": "str"}
OWN = "image:"  # begins the group of an image whose patient is not known

Fact = tuple[str, str | None, int, int, str | None, str | None, dict[str, Any] | None, bytes | None]
# A dataset's metadata can have columns reason, detail and header of its own: those that go again have another name.
FACTS = ["path", "sha256", "width", "height", "_reason", "_detail", "_header", "_thumbnail"]


def inspect(root: str, path: str) -> Fact:
    """Read and decode an image file; runs on a Dask worker.

    Returns:
        A ``FACTS`` tuple: SHA-256 of the file's bytes, width and height in pixels as it is shown (EXIF applied); where
        it gives no pixels, the reason and what was seen; of a DICOM file what its headers tell; and its thumbnail.
    """
    sha256 = None
    try:
        data = read_bytes(Path(root, path))
        sha256 = hashlib.sha256(data).hexdigest()
        width, height, thumbnail = _look(data)
        told = header(data)
    except Unreadable as error:
        return path, sha256, 0, 0, error.reason, error.detail, None, None
    return path, sha256, width, height, None, None, told, thumbnail


def _look(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and thumbnail of an image; a large JPEG is decoded smaller, which reads all its data no less."""
    if size := jpeg_size(data):
        reduce = reduction(*size, 2 * lookalike.SIDE)
        pixels = decode(data, reduce)
        if (pixels.shape[1], pixels.shape[0]) == tuple(-(-side // reduce) for side in size):
            return *size, lookalike.signature(pixels)
    pixels = decode(data)
    height, width = pixels.shape[:2]
    return width, height, lookalike.signature(pixels)


def read_all(
    connection: Client, root: Path, paths: list[str], coming: int | None = None
) -> pd.DataFrame:
    """``inspect`` for all paths under Dask; a table with the columns ``FACTS`` ordered by path.

    ``coming``: see ``cluster.run_all``.
    """
    files = [(str(root), path) for path in paths]
    facts = run_all(connection, inspect, files, "reading images", coming, LARGEST)
    return pd.DataFrame(facts, columns=FACTS).sort_values("path", ignore_index=True)


def clean(
    rows: pd.DataFrame, *, published: bool, near_duplicates: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out what cannot be trained on: unreadable files, conflicting labels, exact duplicates.

    Images with equal bytes and different labels are all left out. Of images with equal bytes and label the first by
    path is kept, or, with ``published``, the first of each published split, since the published split is to be seen as
    it is, leaks included; ``leaks`` names those.

    Args:
        rows: a source's rows with the columns ``FACTS``.
        published: the split is used as published.
        near_duplicates: images that look alike share a group.

    Returns:
        The rows that stay, ordered by path, with ``group`` filled (see ``grouped``) and with ``alike``, a number that
        images which look alike share; and audit rows for the others.
    """
    rows = rows.sort_values("path", ignore_index=True)
    bad = rows["_reason"].notna()
    audit = [_audit(rows[bad], EXCLUDED, rows.loc[bad, "_reason"], rows.loc[bad, "_detail"])]
    rows = rows[~bad].drop(columns=["_reason", "_detail"])
    labels = rows.groupby("sha256")["label"].transform("nunique")
    audit.append(_same_bytes(rows, rows[labels > 1], CONFLICT))
    rows = rows[labels == 1]
    rows = rows.assign(alike=_images(rows, near_duplicates)).drop(columns="_thumbnail")
    rows = grouped(rows)
    key = ["sha256", "split_published"] if published else ["sha256"]
    twice = rows.duplicated(key)
    audit.append(_same_bytes(rows[~twice], rows[twice], DUPLICATE))
    return rows[~twice].reset_index(drop=True), pd.concat(audit, ignore_index=True)


def _images(rows: pd.DataFrame, near_duplicates: bool) -> np.ndarray:
    """A number for each row, the same for files with equal bytes and, if asked, for images that look alike."""
    images = pd.factorize(rows["sha256"])[0]
    if not near_duplicates or rows.empty:
        return images
    thumbnails = rows.loc[~rows.duplicated("sha256"), "_thumbnail"]
    links = lookalike.pairs(
        np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, lookalike.BYTES)
    )
    return lookalike.components(len(thumbnails), links)[images]


def grouped(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill ``group`` so that what must not be divided shares it: a patient's images, and those equal in ``alike``.

    Two patients that share an image become one group, under the first name of the two. An image of no known patient
    is a group with its copies and look-alikes, named by a digest among theirs.
    """
    own = OWN + rows["sha256"].str[:16]
    names = rows["group"].astype(object).where(rows["group"].notna(), own)
    group_codes, group_names = pd.factorize(names, sort=True)
    first = np.full(rows["alike"].max() + 1 if len(rows) else 0, len(group_names), np.int64)
    np.minimum.at(first, rows["alike"], group_codes)
    part = lookalike.components(
        len(group_names), np.column_stack([group_codes, first[rows["alike"]]])
    )
    # The first name of a part, patients before images.
    labels = [str(name) for name in group_names]
    order = sorted(
        range(len(labels)), key=lambda code: (labels[code].startswith(OWN), labels[code])
    )
    name_of_part = {part[code]: labels[code] for code in reversed(order)}
    return rows.assign(group=[name_of_part[one] for one in part[group_codes]])


def from_headers(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make metadata columns of what the files' headers tell (age, sex, view), and audit rows (kept) of odd headers.

    A column that the source's tables have is not replaced. The column ``_header`` goes; where no file has a header that
    tells something, no column comes.
    """
    told = pd.DataFrame([header or {} for header in rows["_header"]], index=rows.index)
    told = told.astype({name: kind for name, kind in HEADER_TYPES.items() if name in told})
    remarks = (
        told.pop("remark") if "remark" in told else pd.Series(None, index=rows.index, dtype="str")
    )
    rows = pd.concat(
        [rows.drop(columns="_header"), told.drop(columns=[c for c in told if c in rows])], axis=1
    )
    odd = remarks.notna()
    return rows, _audit(rows[odd], KEPT, ODD_HEADER, remarks[odd] + "; taken as not known")


def look_alikes(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the clusters of images that look alike.

    Args:
        rows: ordered by path, with the numbers ``alike`` that ``clean`` gives.

    Returns:
        The rows with ``alike`` made the path of the cluster's first image, None where an image looks like no other;
        and audit rows (kept) for each image of a cluster but its first. An image looks like the first of its cluster
        or like another that does.
    """
    clusters = rows.groupby("alike")
    several = clusters["sha256"].transform("nunique") > 1
    first = clusters[["path", "label"]].transform("first")
    rows = rows.assign(alike=first["path"].astype(object).where(several, None))
    others = several & (rows["path"] != first["path"])
    told, first = rows[others], first[others]
    conflict = told["label"] != first["label"]
    detail = "looks like " + first["path"] + (", which is " + first["label"]).where(conflict, "")
    return rows, _audit(told, KEPT, np.where(conflict, LOOK_ALIKE_CONFLICT, LOOK_ALIKE), detail)


def leaks(rows: pd.DataFrame, column: str, reason: str) -> pd.DataFrame:
    """Audit rows (kept) for images whose group stands in several splits of ``column``."""
    here = rows[rows[column].notna()]
    splits = here.groupby("group")[column].transform("nunique")
    leaked = here[splits > 1]
    places = leaked[["group", column]].astype(str).drop_duplicates().sort_values(column)
    where = places.groupby("group")[column].agg(", ".join)
    detail = leaked["group"] + " stands in " + leaked["group"].map(where)
    return _audit(leaked, KEPT, reason, detail)


def _same_bytes(kept: pd.DataFrame, left_out: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Audit rows that name another file with the same bytes, and its label and published split where they differ."""
    others: dict[str, list[Any]] = {}
    for row in kept[kept["sha256"].isin(left_out["sha256"])].itertuples():
        others.setdefault(str(row.sha256), []).append(row)
    details = []
    for row in left_out.itertuples():
        same = [other for other in others[str(row.sha256)] if other.path != row.path]
        other = next((one for one in same if one.label != row.label), same[0])
        label = f", which is {other.label}" if other.label != row.label else ""
        splits = [
            str(one.split_published) for one in (other, row) if one.split_published is not None
        ]
        leak = f"; {LEAK_PUBLISHED} ({', '.join(splits)})" if len(set(splits)) == 2 else ""
        details.append(f"same bytes as {other.path}{label}{leak}")
    return _audit(left_out, EXCLUDED, reason, details)


def _audit(rows: pd.DataFrame, action: str, reason: object, detail: object) -> pd.DataFrame:
    return pd.DataFrame(
        {"path": rows["path"], "action": action, "reason": reason, "detail": detail}, columns=AUDIT
    )
