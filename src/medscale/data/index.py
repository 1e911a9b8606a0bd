"""Creation of the index: lists, reads, audits and divides a study's raw images.

Every file is in index.parquet, or in audit.csv with the reason for leaving it out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from medscale.base.errors import MedscaleError
from medscale.base.files import write_csv, write_json, write_parquet
from medscale.base.log import log
from medscale.base.paths import INDEX
from medscale.data import audit, audit_notes, folds, patients, split
from medscale.data.audit import EXCLUDED, KEPT, audit_rows
from medscale.data.audit_notes import count_values
from medscale.data.cluster import client
from medscale.data.external import external_inventory
from medscale.data.inspection import inspect
from medscale.data.inventory import COLUMNS, Inventory
from medscale.data.kind import scan
from medscale.data.settings import SPLITS, Dask, Source, Split

AUDIT_CSV, AUDIT_JSON = "audit.csv", "audit.json"
# An image's boxes, each x, y, width, height in pixels of its frame.
BOXES = pa.list_(pa.list_(pa.float64()))
TEXT_COLUMNS = [
    *("path", "split", "split_published", "group", "patient", "sha256", "source", "alike")
]
# Columns of every index, in this order; the dataset's metadata follow.
INDEX_COLUMNS = [
    *("id", "path", "label", "split", "split_published", "group", "patient"),
    *("width", "height", "sha256", "source", "alike"),
]


def build_index(
    source: Source, division: Split, classes: list[str] | None, dask: Dask, out: Path
) -> pd.DataFrame:
    """Create a study's index; write ``index.parquet``, ``audit.csv`` and ``audit.json``.

    Args:
        source: kind and path of the raw folder.
        division: settings of the division into splits.
        classes: the study's classes in order; None: the classes of the dataset.
        dask: settings of the Dask workers that read the images.
        out: the study's data folder.

    Returns:
        The index.

    Raises:
        MedscaleError: when the raw folder, a class or a split has no images.
    """
    if division.mode == "external" and classes is not None:
        inventory = external_inventory(source, classes)
    else:
        inventory = scan(source, classes)
    if division.mode == "published":
        split.check_listed(inventory.rows, division)  # first, since reading the images takes long
    root = Path(str(source.path)).resolve()
    paths = inventory.rows["path"].tolist()
    log.info(
        "%d images listed in %s, %d files left out by name or table",
        len(paths),
        root,
        len(inventory.excluded),
    )
    tasks = -(-len(paths) // audit.SMALLEST)
    decoding = source.limits, inspect
    with client(
        dask, audit.inspect_safely, decoding=decoding, tasks=tasks, folder=root
    ) as connection:
        facts = audit.inspect_all(
            connection, root, paths, source, dask.workers, division.near_duplicates
        )
    index, left_out = make_index(inventory, facts, division)
    summary = summarize(index, left_out, inventory, division)
    write_csv(out / AUDIT_CSV, left_out)
    write_json(out / AUDIT_JSON, summary)
    write_parquet(out / INDEX, index, _schema(index))
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["by_reason"].items())
    end = f" ({reasons})" * bool(reasons)
    log.info("%d images used, %d left out%s", summary["used"], summary["excluded"], end)
    return index


def make_index(
    inventory: Inventory, facts: pd.DataFrame, division: Split
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the index and the audit table, which docs/files.md describes.

    Args:
        inventory: inventory of the raw folder.
        facts: one row for each image with the columns ``inspection.FACTS``.
        division: settings of the division into splits.

    Raises:
        MedscaleError: when a class or a split has no images after the audit.
    """
    published = division.mode == "published"
    # Metadata columns of the user may have the same names as temporary columns.
    shadowed = {name: f"\0{name}" for name in inventory.rows if str(name).startswith("_")}
    rows = inventory.rows.rename(columns=shadowed).assign(patient=inventory.patient_names)
    rows = rows.merge(facts, on="path", validate="one_to_many")
    if inventory.patients is None and inventory.reads_headers:
        rows = audit.name_patients(rows)
    rows, several_frames = audit.name_frames(rows)
    rows, unusable = audit.clean(
        rows, published=published, near_duplicates=division.near_duplicates
    )
    parts = [audit_rows(inventory.excluded, EXCLUDED), unusable, several_frames]
    if published:
        rows, without_split = _with_published_split(rows)
        parts.append(without_split)
    if division.mode != "external":  # external images can lack classes
        _check_classes(rows, inventory.classes, pd.concat(parts))
    if division.balance:
        rows, left_out_rows = _balance(rows, division.seed)
        parts.append(left_out_rows)
    rows, odd_headers = audit.from_headers(rows)
    rows, flat = audit.flat_images(rows)
    rows, similar = audit.look_alikes(rows)
    rows = _divided(rows, division)
    parts += [odd_headers, flat, similar, audit.leaks(rows, "split", audit.LEAK)]
    if not published:
        parts.append(audit.leaks(rows, "split_published", audit.LEAK_PUBLISHED))
    left_out = pd.concat(parts).sort_values(["path", "action", "reason"], ignore_index=True)
    rows = rows.rename(columns={new: name for name, new in shadowed.items()})
    return _with_types(rows, inventory.classes), left_out


def _with_published_split(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the images that the published split lists, and audit rows of all others."""
    has_split = rows["split_published"].notna()
    without_split = rows[~has_split].assign(reason=audit.NO_SPLIT, detail="other images have one")
    return rows[has_split].reset_index(drop=True), audit_rows(without_split, EXCLUDED)


def _divided(rows: pd.DataFrame, division: Split) -> pd.DataFrame:
    """Return rows with the column ``split``, and with a column for each fold."""
    if division.folds is None:
        return rows.assign(split=split.assign(rows, division))
    rows = pd.concat([rows, split.assign_folds(rows, division)], axis=1)
    # Code that needs one division uses that of the first fold.
    return rows.assign(split=rows[f"{folds.PREFIX}1"])


def summarize(
    index: pd.DataFrame, left_out: pd.DataFrame, inventory: Inventory, division: Split
) -> dict[str, Any]:
    """Return the counts and notes of audit.json.

    ``found`` counts files (or frames, if all frames are used), and entries of a table without a
    file. ``counts_published`` counts the images of the published split before copies are removed.
    """
    excluded = left_out[left_out["action"] == EXCLUDED]
    kept_rows = left_out[left_out["action"] == KEPT]
    published = inventory.rows[inventory.rows["split_published"].notna()]
    similar = _count_look_alikes(index)
    # If no column or pattern names the patients, ``audit.name_patients`` did.
    origin = inventory.patients or patients.HEADERS
    patient_counts = patients.summary(index["patient"], origin)
    counts = _cross_table(index, "split", inventory.classes)
    return {
        "found": len(index) + len(excluded),
        "used": len(index),
        "excluded": len(excluded),
        "unique": int(index["sha256"].nunique()),
        "groups": int(index["group"].nunique()),
        "patients": patient_counts,
        "near_duplicates": similar if division.near_duplicates else None,
        "by_reason": count_values(excluded["reason"]),
        "kept_by_reason": count_values(kept_rows["reason"]),
        "classes": inventory.classes,
        "counts": counts,
        "counts_published": _cross_table(published, "split_published", inventory.classes)
        if len(published)
        else None,
        "counts_by_source": {str(k): count_values(v["label"]) for k, v in index.groupby("source")},
        "split": division.model_dump(mode="json"),
        "notes": audit_notes.notes(
            index, left_out, inventory, division, patient_counts, similar, counts
        ),
    }


def _balance(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reduce each class to the size of the smallest; return the rows, and audit rows."""
    keep = split.balanced_rows(rows["label"], seed)
    counts = rows["label"].value_counts()
    smallest = f"{counts.min()} of {counts.idxmin()}"
    detail = rows["label"].map(lambda label: f"{counts[label]} images of {label}, {smallest}")
    left_out_rows = rows.assign(reason=audit.BALANCED, detail=detail)[~keep]
    return rows[keep].reset_index(drop=True), audit_rows(left_out_rows, EXCLUDED)


def _count_look_alikes(index: pd.DataFrame) -> dict[str, int]:
    """Count the clusters of similar images, and those with several labels or patients."""
    clusters = index.groupby("alike")
    several = clusters[["label", "patient"]].nunique() > 1
    sizes = clusters.size()
    return {
        "clusters": len(sizes),
        "images": int(sizes.sum()),
        "largest": int(sizes.max()) if len(sizes) else 0,
        "of_several_labels": int(several["label"].sum()),
        "of_several_patients": int(several["patient"].sum()),
    }


def _with_types(rows: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return the index with its columns in their order and types."""
    metadata = [name for name in rows.columns if name not in (*INDEX_COLUMNS, *COLUMNS)]
    label = pd.Categorical(rows["label"], categories=classes, ordered=True)
    table = rows.assign(id=range(len(rows)), label=label)[[*INDEX_COLUMNS, *metadata]]
    integers = dict.fromkeys(("id", "width", "height"), "int64")
    return table.astype({**integers, **dict.fromkeys(TEXT_COLUMNS, "str")})


def _schema(index: pd.DataFrame) -> pa.Schema:
    """Return the index's Parquet schema, since a column of empty boxes would have no type."""
    schema = pa.Schema.from_pandas(index, preserve_index=False)
    position = schema.get_field_index("boxes")
    return schema if position < 0 else schema.set(position, pa.field("boxes", BOXES))


def _check_classes(rows: pd.DataFrame, classes: list[str], left_out: pd.DataFrame) -> None:
    if empty := [name for name in classes if not (rows["label"] == name).any()]:
        counts = count_values(left_out["reason"])
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        raise MedscaleError(
            f"class {', '.join(map(repr, empty))} has no usable images left (left out: "
            f"{reasons or 'nothing'}); add images, or name the study's classes with `classes`"
        )


def _cross_table(rows: pd.DataFrame, column: str, classes: list[str]) -> dict[str, dict[str, int]]:
    pairs = Counter(zip(rows["label"], rows[column], strict=True))
    return {name: {part: pairs[name, part] for part in SPLITS} for name in classes}
