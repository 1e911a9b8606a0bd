"""Audits images: reads each file once, and finds copies, similar images, conflicts and leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client

from medscale.data import frames, guard, lookalike, patients
from medscale.data.cluster import run_all
from medscale.data.images import Unreadable
from medscale.data.inspection import FACTS, Fact, fault, inspect
from medscale.data.inventory import CONFLICT
from medscale.data.settings import Limits, Source

LARGEST = 256  # images a Dask task
SMALLEST = 32  # images for which another local worker is started
AUDIT = ["path", "action", "reason", "detail"]  # columns of audit.csv

# Values of the columns action and reason in audit.csv.
EXCLUDED, KEPT = "excluded", "kept"
DUPLICATE = "duplicate"
LOOK_ALIKE, LOOK_ALIKE_CONFLICT = "near-duplicate", "near-duplicate with another label"
LEAK, LEAK_PUBLISHED = "leak between splits", "leak between published splits"
NO_SPLIT = "no published split"
BALANCED = "balanced away"
ODD_HEADER = "odd header"

HEADER_TYPES = {"age": "float64", "sex": "str", "view": "str", "remark": "str"}
NO_PATIENT = "image:"  # begins the group's name of an image whose patient is not known


def inspect_safely(
    limits: Limits, root: str, path: str, which: str, near_duplicates: bool
) -> list[Fact]:
    """Inspect a file in a process with limits, which a hostile file may end; on a Dask worker."""
    try:
        return guard.call(limits, inspect, root, path, which, near_duplicates)
    except Unreadable as error:
        return [fault(path, None, error)]


def read_all(
    connection: Client,
    root: Path,
    paths: list[str],
    source: Source,
    workers: int | None = None,
    near_duplicates: bool = True,
) -> pd.DataFrame:
    """Inspect all images under Dask.

    Args:
        connection: to a scheduler with workers.
        root: the raw folder.
        paths: paths below it.
        source: which frames of a file are used (``frames``), and ``limits``.
        workers: expected number of workers, see ``cluster.run_all``.
        near_duplicates: see ``inspection.inspect``.

    Returns:
        The columns ``FACTS``, ordered by path and frame.
    """
    arguments = [(source.limits, str(root), path, source.frames, near_duplicates) for path in paths]
    facts = run_all(connection, inspect_safely, arguments, "reading images", workers, LARGEST)
    table = pd.DataFrame((fact for of_file in facts for fact in of_file), columns=FACTS)
    return table.sort_values(["path", "_frame"], ignore_index=True)


def clean(
    rows: pd.DataFrame, *, published: bool, near_duplicates: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out unreadable files, conflicting labels and exact duplicates.

    Images with equal bytes and different labels are all left out. Of images with equal bytes and
    label the first by path is kept. With ``published`` the first of each published split is kept,
    since the published split is to be used as it is; ``leaks`` lists such images.

    Args:
        rows: rows of an inventory with the columns ``FACTS``.
        published: the study uses the published split.
        near_duplicates: similar images share a group.

    Returns:
        The remaining rows, ordered by path, with ``group`` filled (see ``grouped``) and with
        ``alike``, a number that similar images share; and audit rows for the others.
    """
    rows = rows.sort_values("path", ignore_index=True)
    unreadable = rows["_reason"].notna()
    faults = rows.assign(reason=rows["_reason"], detail=rows["_detail"])[unreadable]
    rows = rows[~unreadable].drop(columns=["_reason", "_detail"])
    # Images with conflicting labels take part in the search: they can join others to a group.
    rows = rows.assign(alike=_similarity(rows, near_duplicates)).drop(columns="_signature")
    rows = grouped(rows)
    labels = rows.groupby("sha256")["label"].transform("nunique")
    conflicts = _conflicts(rows, labels > 1)
    rows = rows[labels == 1]
    repeated = rows.duplicated(["sha256", "split_published"] if published else ["sha256"])
    copies = _same_bytes(rows[~repeated], rows[repeated], DUPLICATE)
    audit = pd.concat([audit_rows(faults, EXCLUDED), conflicts, copies], ignore_index=True)
    return rows[~repeated].reset_index(drop=True), audit


def _similarity(rows: pd.DataFrame, near_duplicates: bool) -> np.ndarray:
    """Return a number per row that files with equal bytes share, and similar images if wanted."""
    images = pd.factorize(rows["sha256"])[0]
    if not near_duplicates or rows.empty:
        return images
    signatures = rows.loc[~rows.duplicated("sha256"), "_signature"].tolist()
    return lookalike.components(len(signatures), lookalike.pairs(signatures))[images]


def grouped(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill ``group`` so that images that must not be divided share it.

    These are the images of a patient, and images with the same number ``alike``. Two patients that
    share an image become one group, under the first of their names. An image without a known
    patient forms a group with its copies and similar images, named by a digest of one of them.
    """
    digests = NO_PATIENT + rows["sha256"].str[:16]
    names = rows["group"].astype(object).where(rows["group"].notna(), digests)
    group_codes, group_names = pd.factorize(names, sort=True)
    # Link each group to the first group that shares an image with it; parts are connected groups.
    first = np.full(rows["alike"].max() + 1 if len(rows) else 0, len(group_names), np.int64)
    np.minimum.at(first, rows["alike"], group_codes)
    links = np.column_stack([group_codes, first[rows["alike"]]])
    parts = lookalike.components(len(group_names), links)
    # The first name of each part, patients before digests.
    labels = [str(name) for name in group_names]
    order = sorted(range(len(labels)), key=lambda c: (labels[c].startswith(NO_PATIENT), labels[c]))
    name_of_part = {parts[code]: labels[code] for code in reversed(order)}
    return rows.assign(group=[name_of_part[part] for part in parts[group_codes]])


def name_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill ``patient`` by the files' headers, and ``group`` so that a patient's images share it.

    A group (a lesion or an exam) whose images are of several patients joins these.
    """
    files = rows.drop_duplicates("path")
    numbers = [(header or {}).get("patient") for header in files["_header"]]
    by_path = dict(zip(files["path"], patients.from_headers(numbers), strict=True))
    names = rows["path"].map(by_path).astype(object)
    groups, group_names = pd.factorize(rows["group"])  # -1 where missing
    owners, owner_names = pd.factorize(names)
    has_both = (groups >= 0) & (owners >= 0)
    links = np.column_stack([groups, len(group_names) + owners])[has_both]
    part = lookalike.components(len(group_names) + len(owner_names), links)
    node = np.where(owners >= 0, len(group_names) + owners, groups)
    labels = [*map(str, group_names), *map(str, owner_names)]
    # A part with a patient takes the patient's name, since these follow the names of groups.
    name_of_part = dict(zip(part, labels, strict=True))
    groups_of_rows = [name_of_part[part[number]] if number >= 0 else None for number in node]
    return rows.assign(patient=names, group=pd.Series(groups_of_rows, rows.index, dtype=object))


def from_headers(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make metadata columns (age, sex, view) from the files' headers.

    Columns of the dataset's own tables are not replaced. No column is made if no file has a header.

    Returns:
        The rows without the column ``_header``, and audit rows (kept) of odd headers.
    """
    facts = pd.DataFrame([header or {} for header in rows["_header"]], index=rows.index)
    facts = facts.drop(columns="patient", errors="ignore")  # see ``name_patients``
    facts = facts.astype({name: type_ for name, type_ in HEADER_TYPES.items() if name in facts})
    remarks = pd.Series(None, index=rows.index, dtype="str")
    if "remark" in facts:
        remarks = facts.pop("remark")
    new = facts.drop(columns=[name for name in facts if name in rows])
    rows = pd.concat([rows.drop(columns="_header"), new], axis=1)
    odd = rows.assign(reason=ODD_HEADER, detail=remarks + "; taken as not known")[remarks.notna()]
    return rows, audit_rows(odd, KEPT)


def name_frames(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the frames of files with several (``frames.name_frames``); add audit rows (kept)."""
    rows, notes = frames.name_frames(rows)
    return rows, audit_rows(notes.assign(reason=frames.SEVERAL), KEPT)


def look_alikes(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the clusters of similar images.

    Args:
        rows: ordered by path, with the numbers ``alike`` of ``clean``.

    Returns:
        The rows with ``alike`` replaced by the path of the cluster's first image, None for an image
        without similar ones; and audit rows (kept) for each image of a cluster but the first. An
        image is similar to the first of its cluster, or to another image that is.
    """
    clusters = rows.groupby("alike")
    several = clusters["sha256"].transform("nunique") > 1
    first = clusters[["path", "label"]].transform("first")
    rows = rows.assign(alike=first["path"].astype(object).where(several, None))
    is_other = several & (rows["path"] != first["path"])
    copies, first = rows[is_other], first[is_other]
    conflict = copies["label"] != first["label"]
    reason = np.where(conflict, LOOK_ALIKE_CONFLICT, LOOK_ALIKE)
    detail = "looks like " + first["path"] + (", which is " + first["label"]).where(conflict, "")
    return rows, audit_rows(copies.assign(reason=reason, detail=detail), KEPT)


def leaks(rows: pd.DataFrame, column: str, reason: str) -> pd.DataFrame:
    """Return audit rows (kept) of images whose group is in several splits of ``column``."""
    rows = rows[rows[column].notna()]
    leaked = rows[rows.groupby("group")[column].transform("nunique") > 1]
    pairs = leaked[["group", column]].astype(str).drop_duplicates().sort_values(column)
    splits = pairs.groupby("group")[column].agg(", ".join)
    detail = leaked["group"] + " stands in " + leaked["group"].map(splits).astype("str")
    return audit_rows(leaked.assign(reason=reason, detail=detail), KEPT)


def _conflicts(rows: pd.DataFrame, is_conflict: pd.Series) -> pd.DataFrame:
    """Return audit rows of images with conflicting labels.

    The detail names a similar image in another published split, unless that of equal bytes is in
    another one already.
    """
    conflicts = rows[is_conflict]
    table = _same_bytes(rows, conflicts, CONFLICT)
    published = rows[rows["split_published"].notna() & rows["alike"].isin(conflicts["alike"])]
    columns = ["alike", "path", "split_published"]
    by_cluster: dict[int, list[tuple[str, str]]] = {}
    for number, path, split in published[columns].itertuples(index=False, name=None):
        by_cluster.setdefault(number, []).append((path, split))
    details: list[str] = []
    for number, _, split in conflicts[columns].itertuples(index=False, name=None):
        detail = table["detail"].iloc[len(details)]
        others = [pair for pair in by_cluster.get(number, []) if split and pair[1] != split]
        if others and LEAK_PUBLISHED not in detail:
            path, other = others[0]
            detail += f"; looks like {path}: {LEAK_PUBLISHED} ({other}, {split})"
        details.append(detail)
    return table.assign(detail=details)


def _same_bytes(kept: pd.DataFrame, left_out: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Return audit rows that name another file with the same bytes.

    The detail gives label and published split of the other file where they differ; a file with
    another label is preferred.
    """
    by_digest: dict[str, list[Any]] = {}
    for row in kept[kept["sha256"].isin(left_out["sha256"])].itertuples():
        by_digest.setdefault(str(row.sha256), []).append(row)
    details = []
    for row in left_out.itertuples():
        same = [other for other in by_digest[str(row.sha256)] if other.path != row.path]
        other = next((other for other in same if other.label != row.label), same[0])
        label = f", which is {other.label}" if other.label != row.label else ""
        splits = [str(r.split_published) for r in (other, row) if r.split_published is not None]
        leak = f"; {LEAK_PUBLISHED} ({', '.join(splits)})" if len(set(splits)) == 2 else ""
        details.append(f"same bytes as {other.path}{label}{leak}")
    return audit_rows(left_out.assign(reason=reason, detail=details), EXCLUDED)


def audit_rows(rows: pd.DataFrame, action: str) -> pd.DataFrame:
    """Return rows of audit.csv for rows with the columns ``path, reason, detail``."""
    return rows.assign(action=action)[AUDIT]
