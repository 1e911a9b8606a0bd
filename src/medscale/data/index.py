"""From a raw folder to index.parquet, audit.csv and audit.json: every file found is used or left out with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from medscale.base.errors import MedscaleError
from medscale.base.files import write_csv, write_json, write_parquet
from medscale.base.log import log
from medscale.config.sections import Source, Split
from medscale.data import audit, split
from medscale.data.audit import AUDIT, EXCLUDED, KEPT
from medscale.data.cluster import client
from medscale.data.frames import file_of
from medscale.data.sources import scan
from medscale.data.sources.found import COLUMNS, Found
from medscale.resources.machines import Dask

INDEX, AUDIT_CSV, AUDIT_JSON = "index.parquet", "audit.csv", "audit.json"
BOXES = pa.list_(
    pa.list_(pa.float64())
)  # an image's boxes, each x, y, width, height in pixels of its frame
FIRST = [
    "id",
    "path",
    "label",
    "split",
    "split_published",
    "group",
    "width",
    "height",
    "sha256",
    "source",
    "alike",
]


def build_index(
    source: Source, division: Split, classes: list[str] | None, dask: Dask, out: Path
) -> pd.DataFrame:
    """List, read, audit and split a study's raw images; write ``index.parquet``, ``audit.csv`` and ``audit.json``.

    Args:
        source: kind and path of the raw folder.
        division: how the images are divided.
        classes: the study's classes in order; None for the source's own.
        dask: where the images are read.
        out: the study's data folder.

    Returns:
        The index, as written.

    Raises:
        MedscaleError: when the folder, a class or a split does not hold what is needed.
    """
    listed = scan(source, classes)
    if division.mode == "published":
        split.check_published(listed.rows)
    root = Path(str(source.path)).resolve()
    paths = listed.rows["path"].tolist()
    log.info(
        "%d images listed in %s, %d files left out by name or table",
        len(paths),
        root,
        len(listed.excluded),
    )
    with client(dask, tasks=-(-len(paths) // audit.SMALLEST), folder=root) as connection:
        facts = audit.read_all(connection, root, paths, dask.workers, source.frames)
    index, left_out = make_index(listed, facts, division)
    summary = summarize(index, left_out, listed, division)
    write_csv(out / AUDIT_CSV, left_out)
    write_json(out / AUDIT_JSON, summary)
    write_parquet(out / INDEX, index, _schema(index))
    log.info("%d used, %d excluded: %s", summary["used"], summary["excluded"], summary["by_reason"])
    return index


def make_index(
    listed: Found, facts: pd.DataFrame, division: Split
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The index and the audit table from what was listed and what was read; see ARCHITECTURE.md for both.

    Raises:
        MedscaleError: when a class or a split is left without images.
    """
    published = division.mode == "published"
    rows = listed.rows.merge(facts, on="path", validate="one_to_many")
    rows, several = audit.name_frames(rows)
    rows, unusable = audit.clean(
        rows, published=published, near_duplicates=division.near_duplicates
    )
    parts = [listed.excluded.assign(action=EXCLUDED)[AUDIT], unusable, several]
    if published:
        unplaced = rows["split_published"].isna()
        gone = rows.loc[unplaced, ["path"]].assign(
            action=EXCLUDED, reason=audit.NO_SPLIT, detail="the others have one"
        )
        parts.append(gone)
        rows = rows[~unplaced].reset_index(drop=True)
    _check_classes(rows, listed.classes, pd.concat(parts))
    if division.balance:
        rows, gone = _balance(rows, division.seed)
        parts.append(gone)
    rows, odd = audit.from_headers(rows)
    parts.append(odd)
    rows, similar = audit.look_alikes(rows)
    parts.append(similar)
    rows["split"] = split.assign(rows, division)
    parts.append(audit.leaks(rows, "split", audit.LEAK))
    if not published:
        parts.append(audit.leaks(rows, "split_published", audit.LEAK_PUBLISHED))
    left_out = pd.concat(parts).sort_values(["path", "action", "reason"], ignore_index=True)
    return _typed(rows, listed.classes), left_out


def summarize(
    index: pd.DataFrame, left_out: pd.DataFrame, listed: Found, division: Split
) -> dict[str, Any]:
    """Counts and notes of audit.json.

    ``found`` counts files, each frame where all frames are used, and entries of a table whose file
    is missing; ``counts_published`` what the published split lists, copies included.
    """
    excluded = left_out[left_out["action"] == EXCLUDED]
    kept = left_out[left_out["action"] == KEPT]
    published = listed.rows[listed.rows["split_published"].notna()]
    return {
        "found": len(index) + len(excluded),
        "used": len(index),
        "excluded": len(excluded),
        "unique": int(index["sha256"].nunique()),
        "groups": int(index["group"].nunique()),
        "near_duplicates": _look_alikes(index, listed) if division.near_duplicates else None,
        "by_reason": _count(excluded["reason"]),
        "kept_by_reason": _count(kept["reason"]),
        "classes": listed.classes,
        "counts": _cross(index, "split", listed.classes),
        "counts_published": _cross(published, "split_published", listed.classes)
        if len(published)
        else None,
        "counts_by_source": {str(k): _count(v["label"]) for k, v in index.groupby("source")},
        "split": division.model_dump(mode="json"),
        "notes": [
            *listed.notes,
            *_of_look_alikes(index, listed),
            *_notes(index, left_out, division),
        ],
    }


def _notes(index: pd.DataFrame, left_out: pd.DataFrame, division: Split) -> list[str]:
    notes = []
    copies = left_out[left_out["reason"] == audit.DUPLICATE]
    across = int(copies["detail"].str.contains(audit.LEAK_PUBLISHED, regex=False).sum())
    if across and division.mode != "published":
        notes.append(
            f"{across} images stand in two published splits: the published split would have leaked them."
        )
    apart = index.loc[index.groupby("alike")["split_published"].transform("nunique") > 1, "path"]
    if len(apart):
        notes.append(f"{len(apart)} images look like one in another published split.")
    published = left_out.loc[left_out["reason"] == audit.LEAK_PUBLISHED, "path"]
    if patients := int((~published.isin(apart)).sum()):
        notes.append(f"{patients} images are of patients in two published splits.")
    train = set(index.loc[index["split"] == "train", "group"])
    for name in ("val", "test"):
        part = index.loc[index["split"] == name, "group"]
        if leaked := int(part.isin(train).sum()):
            alike = ", or look like one in it," if division.near_duplicates else ""
            what = f"{leaked} of the {len(part)} {name} images are in the training split too{alike}"
            why = f"with split.mode {division.mode} their accuracy says little about new patients"
            notes.append(f"{what} or are of a patient who is: {why}.")
    for name, counts in _cross(
        index, "split", [str(c) for c in index["label"].cat.categories]
    ).items():
        notes += [
            f"Class {name} has no images in {part}." for part, count in counts.items() if not count
        ]
    return notes


def _balance(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut each class to the size of the smallest: the rows that stay, and audit rows for the others."""
    stay = split.balanced(rows["label"], seed)
    counts = rows["label"].value_counts()
    least = f"{counts.min()} of {counts.idxmin()}"
    detail = rows["label"].map(lambda label: f"{counts[label]} images of {label}, {least}")
    gone = rows.assign(action=EXCLUDED, reason=audit.BALANCED, detail=detail).loc[~stay, AUDIT]
    return rows[stay].reset_index(drop=True), gone


def _look_alikes(index: pd.DataFrame, listed: Found) -> dict[str, int]:
    """Clusters of images that look alike, their images, the largest, and how many hold several labels or patients."""
    patients = index["path"].map(file_of).map(listed.rows.set_index("path")["group"])
    clusters = index.assign(patient=patients).groupby("alike")
    several = clusters[["label", "patient"]].nunique() > 1
    sizes = clusters.size()
    return {
        "clusters": len(sizes),
        "images": int(sizes.sum()),
        "largest": int(sizes.max()) if len(sizes) else 0,
        "of_several_labels": int(several["label"].sum()),
        "of_several_patients": int(several["patient"].sum()),
    }


def _of_look_alikes(index: pd.DataFrame, listed: Found) -> list[str]:
    found = _look_alikes(index, listed)
    if not found["clusters"]:
        return []
    told = [f"clusters: {found['clusters']}, the largest of {found['largest']}"]
    crossing = {
        "several labels": found["of_several_labels"],
        "several patients": found["of_several_patients"],
    }
    told += [f"of {what}: {count}" for what, count in crossing.items() if count]
    return [f"{found['images']} images look like another ({'; '.join(told)})."]


def _typed(rows: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Columns in the contract's order and types."""
    metadata = [c for c in rows.columns if c not in (*FIRST, *COLUMNS)]
    label = pd.Categorical(rows["label"], categories=classes, ordered=True)
    table = rows.assign(id=range(len(rows)), label=label)[[*FIRST, *metadata]]
    text = dict.fromkeys(
        ("path", "split", "split_published", "group", "sha256", "source", "alike"), "str"
    )
    return table.astype({"id": "int64", "width": "int64", "height": "int64", **text})


def _schema(index: pd.DataFrame) -> pa.Schema:
    """The index's types in Parquet: boxes are lists of lists of numbers also where all are empty."""
    schema = pa.Schema.from_pandas(index, preserve_index=False)
    where = schema.get_field_index("boxes")
    return schema if where < 0 else schema.set(where, pa.field("boxes", BOXES))


def _check_classes(rows: pd.DataFrame, classes: list[str], left_out: pd.DataFrame) -> None:
    if empty := [name for name in classes if not (rows["label"] == name).any()]:
        reasons = ", ".join(
            f"{reason} {count}" for reason, count in _count(left_out["reason"]).items()
        )
        raise MedscaleError(
            f"class {', '.join(map(repr, empty))} has no usable images left (left out: {reasons or 'nothing'}); "
            "add images, or name the classes that you want with `classes`"
        )


def _cross(rows: pd.DataFrame, column: str, classes: list[str]) -> dict[str, dict[str, int]]:
    pairs = Counter(zip(rows["label"], rows[column], strict=True))
    return {name: {part: pairs[name, part] for part in split.SPLITS} for name in classes}


def _count(values: pd.Series) -> dict[str, int]:
    return dict(sorted(Counter(values.astype(str)).items(), key=lambda item: (-item[1], item[0])))
