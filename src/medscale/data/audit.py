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
from medscale.data.prepare import FEWEST_LEVELS, NO_CONTRAST
from medscale.data.settings import Limits, Source

LARGEST = 256  # largest number of images of a Dask task
SMALLEST = 32  # number of images for which another local worker is started
AUDIT = ["path", "action", "reason", "detail"]  # columns of audit.csv

# Values of the columns action and reason in audit.csv.
EXCLUDED, KEPT = "excluded", "kept"
DUPLICATE = "duplicate"
NOT_COMPARED = "not compared with others"
LOOK_ALIKE, LOOK_ALIKE_CONFLICT = "near-duplicate", "near-duplicate with another label"
LEAK, LEAK_PUBLISHED = "leak between splits", "leak between published splits"
NO_SPLIT = "no published split"
BALANCED = "balanced away"
ODD_HEADER = "odd header"

HEADER_TYPES = {"age": "float64", "sex": "str", "view": "str", "remark": "str"}


def inspect_safely(
    limits: Limits, root: str, path: str, frame_choice: str, near_duplicates: bool
) -> list[Fact]:
    """Inspect a file in a child process with limits, which a hostile file may crash.

    It runs on a Dask worker. The arguments are those of ``inspection.inspect``.
    """
    try:
        return guard.call(limits, inspect, root, path, frame_choice, near_duplicates)
    except Unreadable as error:
        return [fault(path, None, error)]


def inspect_all(
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
    table = pd.DataFrame((fact for file_facts in facts for fact in file_facts), columns=FACTS)
    return table.sort_values(["path", "_frame"], ignore_index=True)


def clean(
    rows: pd.DataFrame, *, published: bool, near_duplicates: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out unreadable files, conflicting labels and exact duplicates.

    Images with equal bytes and different labels are all left out. Of images with equal bytes and
    labels, the first by path is kept. With ``published``, the first of each published split is
    kept, since the published split is used without changes; ``leaks`` lists such images.

    Args:
        rows: rows of an inventory with the columns ``FACTS``.
        published: whether the study uses the published split.
        near_duplicates: whether similar images share a group.

    Returns:
        The remaining rows, ordered by path, with ``group`` (see ``fill_groups``) and ``alike``, a
        number that similar images share; and audit rows of the rows that were left out.
    """
    rows = rows.sort_values("path", ignore_index=True)
    unreadable = rows["_reason"].notna()
    faults = rows.assign(reason=rows["_reason"], detail=rows["_detail"])[unreadable]
    rows = rows[~unreadable].drop(columns=["_reason", "_detail"])
    # The search includes images with conflicting labels, since they can join images to a group.
    alike, is_compared = _similarity(rows, near_duplicates)
    rows = rows.assign(alike=alike, _compared=is_compared).drop(columns="_signature")
    rows = fill_groups(rows)
    labels = rows.groupby("sha256")["label"].transform("nunique")
    conflicts = _conflicts(rows, labels > 1)
    rows = rows[labels == 1]
    repeated = rows.duplicated(["sha256", "split_published"] if published else ["sha256"])
    copies = _same_bytes(rows[~repeated], rows[repeated], DUPLICATE)
    audit = pd.concat([audit_rows(faults, EXCLUDED), conflicts, copies], ignore_index=True)
    return rows[~repeated].reset_index(drop=True), audit


def _similarity(rows: pd.DataFrame, near_duplicates: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each row, shared by equal files and, if requested, similar images.

    Second, whether a row's image was compared with others; all are if that is not requested.
    """
    images = pd.factorize(rows["sha256"])[0]
    if not near_duplicates or rows.empty:
        return images, np.ones(len(rows), bool)
    signatures = rows.loc[~rows.duplicated("sha256"), "_signature"].tolist()
    pairs, has_relief = lookalike.search(signatures)
    return lookalike.components(len(signatures), pairs)[images], has_relief[images]


def fill_groups(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill ``group`` so that images which must stay in one split share it.

    These are the images of a patient, and images with the same number ``alike``. Two patients with
    a common image become one group, which has the first of their names. An image without a known
    patient forms a group with its copies and similar images, named by a digest of one of them.
    """
    unnamed = patients.group_without_patient(rows["sha256"])
    names = rows["group"].astype(object).where(rows["group"].notna(), unnamed)
    group_codes, group_names = pd.factorize(names, sort=True)
    # Link each group to the first group that has an image in common; parts are connected groups.
    first = np.full(rows["alike"].max() + 1 if len(rows) else 0, len(group_names), np.int64)
    np.minimum.at(first, rows["alike"], group_codes)
    links = np.column_stack([group_codes, first[rows["alike"]]])
    parts = lookalike.components(len(group_names), links)
    # The first name of each part, patients before digests.
    labels = [str(name) for name in group_names]
    order = sorted(
        range(len(labels)), key=lambda c: (labels[c].startswith(patients.NO_PATIENT), labels[c])
    )
    name_of_part = {parts[code]: labels[code] for code in reversed(order)}
    return rows.assign(group=[name_of_part[part] for part in parts[group_codes]])


def name_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill ``patient`` from the files' headers, and ``group`` so that a patient's images share it.

    If a group (a lesion or an exam) has images of several patients, these share one group.
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
    # Names of patients follow the names of groups, so that they overwrite them in this dictionary.
    name_of_part = dict(zip(part, labels, strict=True))
    groups_of_rows = [name_of_part[part[number]] if number >= 0 else None for number in node]
    return rows.assign(patient=names, group=pd.Series(groups_of_rows, rows.index, dtype=object))


def from_headers(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add metadata columns (age, sex, view) from the files' headers.

    Columns of the dataset's own tables are not replaced. If no file has a header, none is added.

    Returns:
        The rows without the column ``_header``, and audit rows (kept) for headers with a value that
        is not plausible.
    """
    facts = pd.DataFrame([header or {} for header in rows["_header"]], index=rows.index)
    facts = facts.drop(columns="patient", errors="ignore")  # see ``name_patients``
    facts = facts.astype({name: type_ for name, type_ in HEADER_TYPES.items() if name in facts})
    remarks = pd.Series(None, index=rows.index, dtype="str")
    if "remark" in facts:
        remarks = facts.pop("remark")
    new = facts.drop(columns=[name for name in facts if name in rows])
    rows = pd.concat([rows.drop(columns="_header"), new], axis=1)
    odd_headers = rows.assign(reason=ODD_HEADER, detail=remarks + "; taken as not known")[
        remarks.notna()
    ]
    return rows, audit_rows(odd_headers, KEPT)


def name_frames(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the frames of files with several (``frames.name_frames``); add audit rows (kept)."""
    rows, notes = frames.name_frames(rows)
    return rows, audit_rows(notes.assign(reason=frames.SEVERAL), KEPT)


def flat_images(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find blank images, files that use a small part of the range of their samples, and stripes.

    Blank images and stripes have no relief, so that they were not compared with other images.

    Returns:
        The rows without the columns ``_levels`` and ``_compared``, and audit rows (kept).
    """
    flat = rows[rows["_levels"] < FEWEST_LEVELS]
    detail = "its pixels span " + flat["_levels"].astype(str) + " of 255 levels"
    notes = audit_rows(flat.assign(reason=NO_CONTRAST, detail=detail), KEPT)
    plain = rows[~rows["_compared"]]
    why = "it is blank or has stripes alone; copies of it, except exact ones, are not found"
    notes = pd.concat([notes, audit_rows(plain.assign(reason=NOT_COMPARED, detail=why), KEPT)])
    return rows.drop(columns=["_levels", "_compared"]), notes


def look_alikes(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the clusters of similar images.

    Args:
        rows: rows ordered by path, with the numbers ``alike`` from ``clean``.

    Returns:
        The rows with ``alike`` replaced by the path of the cluster's first image (None for an image
        without similar images); and audit rows (kept) for each image of a cluster but the first.
        The images of a cluster are linked to its first image by a chain of similar images.
    """
    clusters = rows.groupby("alike")
    several = clusters["sha256"].transform("nunique") > 1
    first = clusters[["path", "label"]].transform("first")
    rows = rows.assign(alike=first["path"].astype(object).where(several, None))
    is_copy = several & (rows["path"] != first["path"])
    copies, first = rows[is_copy], first[is_copy]
    conflict = copies["label"] != first["label"]
    reason = np.where(conflict, LOOK_ALIKE_CONFLICT, LOOK_ALIKE)
    # pandas 3.0 cannot join texts with an empty column of objects, so columns become texts.
    path, label = first["path"].astype(str), first["label"].astype(str)
    detail = "looks like " + path + (", which is " + label).where(conflict, "")
    return rows, audit_rows(copies.assign(reason=reason, detail=detail), KEPT)


def leaks(rows: pd.DataFrame, column: str, reason: str) -> pd.DataFrame:
    """Return audit rows (kept) of images whose group is in several splits of ``column``."""
    rows = rows[rows[column].notna()]
    leaked = rows[rows.groupby("group")[column].transform("nunique") > 1]
    pairs = leaked[["group", column]].astype(str).drop_duplicates().sort_values(column)
    splits = pairs.groupby("group")[column].agg(", ".join)
    group = leaked["group"].astype(str)
    detail = group + " stands in " + group.map(splits).astype(str)
    return audit_rows(leaked.assign(reason=reason, detail=detail), KEPT)


def _conflicts(rows: pd.DataFrame, is_conflict: pd.Series) -> pd.DataFrame:
    """Return audit rows of images with conflicting labels.

    The detail names an image with the same bytes. If that image is not in another published split,
    the detail also names a similar image that is.
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
        similar_files = [pair for pair in by_cluster.get(number, []) if split and pair[1] != split]
        if similar_files and LEAK_PUBLISHED not in detail:
            path, other_split = similar_files[0]
            detail += f"; looks like {path}: {LEAK_PUBLISHED} ({other_split}, {split})"
        details.append(detail)
    return table.assign(detail=details)


def _same_bytes(candidates: pd.DataFrame, left_out: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Return audit rows that name another file with the same bytes.

    The detail gives label and published split of the other file if they differ. Of several files,
    one with another label is preferred.
    """
    by_digest: dict[str, list[Any]] = {}
    for row in candidates[candidates["sha256"].isin(left_out["sha256"])].itertuples():
        by_digest.setdefault(str(row.sha256), []).append(row)
    details = []
    for row in left_out.itertuples():
        equal_files = [other for other in by_digest[str(row.sha256)] if other.path != row.path]
        equal = next((other for other in equal_files if other.label != row.label), equal_files[0])
        label = f", which is {equal.label}" if equal.label != row.label else ""
        splits = [str(r.split_published) for r in (equal, row) if r.split_published is not None]
        leak = f"; {LEAK_PUBLISHED} ({', '.join(splits)})" if len(set(splits)) == 2 else ""
        details.append(f"same bytes as {equal.path}{label}{leak}")
    return audit_rows(left_out.assign(reason=reason, detail=details), EXCLUDED)


def audit_rows(rows: pd.DataFrame, action: str) -> pd.DataFrame:
    """Return rows of audit.csv for rows with the columns ``path, reason, detail``."""
    return rows.assign(action=action)[AUDIT]
