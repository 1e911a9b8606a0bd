"""Reads every file once (digest, size, fault) and finds duplicates, conflicting labels and leaks between splits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medscale.data.cluster import run_all
from medscale.data.images import Unreadable, decode, header, read_bytes
from medscale.data.sources.found import CONFLICT

BATCH = 32  # images a Dask task
AUDIT = ["path", "action", "reason", "detail"]
EXCLUDED, KEPT = "excluded", "kept"
DUPLICATE = "duplicate"
LEAK, LEAK_PUBLISHED = "leak between splits", "leak between published splits"
NO_SPLIT = "no published split"
BALANCED = "balanced away"
ODD_HEADER = "odd header"
HEADER_TYPES = {"age": "float64", "sex": "str", "view": "str", "remark": "str"}
OWN = "image:"  # begins the group of an image whose patient is not known

Fact = tuple[str, str | None, int, int, str | None, str | None, dict[str, Any] | None]
# A dataset's metadata can have columns reason, detail and header of its own: those that go again have another name.
FACTS = ["path", "sha256", "width", "height", "_reason", "_detail", "_header"]


def inspect(root: str, paths: list[str]) -> list[Fact]:
    """Read and decode image files; runs on a Dask worker.

    Returns:
        A ``FACTS`` tuple a file: SHA-256 of its bytes, width and height in pixels as it is shown (EXIF applied), and,
        where it gives no pixels, the reason and what was seen; of a DICOM file what its headers tell, else None.
    """
    return [_inspect_one(root, path) for path in paths]


def _inspect_one(root: str, path: str) -> Fact:
    sha256 = None
    try:
        data = read_bytes(Path(root, path))
        sha256 = hashlib.sha256(data).hexdigest()
        height, width = decode(data).shape[:2]
        told = header(data)
    except Unreadable as error:
        return path, sha256, 0, 0, error.reason, error.detail, None
    return path, sha256, width, height, None, None, told


def read_all(connection: Client, root: Path, paths: list[str]) -> pd.DataFrame:
    """``inspect`` for all paths under Dask, in batches; a table with the columns ``FACTS`` ordered by path."""
    batches = [(str(root), paths[start : start + BATCH]) for start in range(0, len(paths), BATCH)]
    facts = [fact for batch in run_all(connection, inspect, batches, "reading images") for fact in batch]
    return pd.DataFrame(facts, columns=FACTS).sort_values("path", ignore_index=True)


def clean(rows: pd.DataFrame, *, published: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out what cannot be trained on: unreadable files, conflicting labels, exact duplicates.

    Images with equal bytes and different labels are all left out. Of images with equal bytes and label the first by
    path is kept, or, with ``published``, the first of each published split, since the published split is to be seen as
    it is, leaks included; ``leaks`` names those.

    Args:
        rows: a source's rows with the columns ``FACTS``.
        published: the split is used as published.

    Returns:
        The rows that stay, ordered by path, with ``group`` filled (see ``grouped``), and audit rows for the others.
    """
    rows = rows.sort_values("path", ignore_index=True)
    bad = rows["_reason"].notna()
    audit = [_audit(rows[bad], EXCLUDED, rows.loc[bad, "_reason"], rows.loc[bad, "_detail"])]
    rows = rows[~bad].drop(columns=["_reason", "_detail"])
    labels = rows.groupby("sha256")["label"].transform("nunique")
    audit.append(_same_bytes(rows, rows[labels > 1], CONFLICT))
    rows = grouped(rows[labels == 1])
    key = ["sha256", "split_published"] if published else ["sha256"]
    twice = rows.duplicated(key)
    audit.append(_same_bytes(rows[~twice], rows[twice], DUPLICATE))
    return rows[~twice].reset_index(drop=True), pd.concat(audit, ignore_index=True)


def grouped(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill ``group`` so that what must not be divided shares it: a patient's images, and copies of one image.

    Two patients that share an image become one group, under the first name of the two. An image of no known patient
    is a group with its copies, named by its digest.
    """
    own = OWN + rows["sha256"].str[:16]
    names = rows["group"].astype(object).where(rows["group"].notna(), own)
    group_codes, group_names = pd.factorize(names, sort=True)
    image_codes, images = pd.factorize(rows["sha256"])
    shape = len(group_names), len(group_names)
    first = np.full(len(images), len(group_names), np.int64)
    np.minimum.at(first, image_codes, group_codes)
    edges = coo_array((np.ones(len(rows)), (group_codes, first[image_codes])), shape=shape)
    _, part = connected_components(edges, directed=False)
    # The first name of a part, patients before images.
    labels = [str(name) for name in group_names]
    order = sorted(range(len(labels)), key=lambda code: (labels[code].startswith(OWN), labels[code]))
    name_of_part = {part[code]: labels[code] for code in reversed(order)}
    return rows.assign(group=[name_of_part[one] for one in part[group_codes]])


def from_headers(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make metadata columns of what the files' headers tell (age, sex, view), and audit rows (kept) of odd headers.

    A column that the source's tables have is not replaced. The column ``_header`` goes; where no file has a header that
    tells something, no column comes.
    """
    told = pd.DataFrame([header or {} for header in rows["_header"]], index=rows.index)
    told = told.astype({name: kind for name, kind in HEADER_TYPES.items() if name in told})
    remarks = told.pop("remark") if "remark" in told else pd.Series(None, index=rows.index, dtype="str")
    rows = pd.concat([rows.drop(columns="_header"), told.drop(columns=[c for c in told if c in rows])], axis=1)
    odd = remarks.notna()
    return rows, _audit(rows[odd], KEPT, ODD_HEADER, remarks[odd] + "; taken as not known")


def leaks(rows: pd.DataFrame, column: str, reason: str) -> pd.DataFrame:
    """Audit rows (kept) for images whose group stands in several splits of ``column``."""
    here = rows[rows[column].notna()]
    splits = here.groupby("group")[column].transform("nunique")
    leaked = here[splits > 1]
    where = leaked.groupby("group")[column].agg(lambda s: ", ".join(sorted(set(s))))
    detail = leaked["group"] + " stands in " + leaked["group"].map(where)
    return _audit(leaked, KEPT, reason, detail)


def _same_bytes(kept: pd.DataFrame, left_out: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Audit rows that name another file with the same bytes, and its label and published split where they differ."""
    others: dict[str, list[Any]] = {}
    for row in kept.itertuples():
        others.setdefault(str(row.sha256), []).append(row)
    details = []
    for row in left_out.itertuples():
        same = [other for other in others[str(row.sha256)] if other.path != row.path]
        other = next((one for one in same if one.label != row.label), same[0])
        label = f", which is {other.label}" if other.label != row.label else ""
        splits = [str(one.split_published) for one in (other, row) if one.split_published is not None]
        leak = f"; {LEAK_PUBLISHED} ({', '.join(splits)})" if len(set(splits)) == 2 else ""
        details.append(f"same bytes as {other.path}{label}{leak}")
    return _audit(left_out, EXCLUDED, reason, details)


def _audit(rows: pd.DataFrame, action: str, reason: object, detail: object) -> pd.DataFrame:
    return pd.DataFrame({"path": rows["path"], "action": action, "reason": reason, "detail": detail}, columns=AUDIT)
