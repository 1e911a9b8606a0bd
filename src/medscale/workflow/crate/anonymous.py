"""Copies of tables without names of files and patients, for a crate.

A copy holds what the report reads, so that the report made from the crate has the same numbers.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medscale.base import paths
from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, read_json, read_table, sha256, write_csv
from medscale.data.folds import is_of_folds
from medscale.data.index_file import ORIGINAL, index_digest, read_index
from medscale.report.datasheet.make import FREQUENT, metadata_columns
from medscale.workflow.crate.scan import ANONYMOUS

# Patterns of paths below the workdir of the files that a crate has as such copies.
INDEX, AUDIT, EXTERNAL = (
    "data/*/index.parquet", "data/*/audit.csv", "external/*/*/predictions.csv",
)  # fmt: skip
LINKED = ["id", "label", "split"]  # columns that stay in one row with group and folds


def is_copied(path: str) -> bool:
    """Return whether a crate has a copy without names of a file."""
    return any(fnmatchcase(path, pattern) for pattern in (INDEX, AUDIT, EXTERNAL))


def is_index_without_names(file: Path) -> bool:
    """Return whether an index is such a copy, in a study that was restored from a crate."""
    return index_digest(file) != sha256(file)


def refuse_copy(folder: Path) -> None:
    """Raise MedscaleError when the index of a data folder is a crate's copy without names."""
    if is_index_without_names(folder / paths.INDEX):
        raise MedscaleError(
            f"{folder} comes from a crate, without names of patients and files and without sizes "
            "of images; name the data folder of the study that was packed"
        )


def copy(file: Path, to: Path, path: str) -> None:
    """Write a file's copy without names; ``path`` is the file's path below the workdir."""
    if fnmatchcase(path, INDEX):
        _copy_index(file, to)
        return
    rows = read_table(file, dtype=str, keep_default_na=False)  # a class can be named NA
    other = {"detail": ""} if fnmatchcase(path, AUDIT) else {"group": _ranked(rows["group"])}
    write_csv(to, rows.assign(path=_numbered(rows["path"]), **other))


def _copy_index(file: Path, to: Path) -> None:
    """Write an index of groups without their names and of columns that are summarized.

    Every column besides ``LINKED`` and the group keeps its distribution as far as the datasheet
    prints it, in an order that has nothing to do with the images. The file's own metadata holds
    the digest of the original.
    """
    index = read_index(file)
    folds = [name for name in index if is_of_folds(name)]
    table = index[LINKED + folds].assign(group=_ranked(index["group"].astype(str)))
    table["sha256"] = _numbered(index["sha256"])  # equal for copies, which the report counts
    for name in ("width", "height"):
        low, high = index[name].min(), index[name].max()
        table[name] = [low, *[high] * (len(index) - 1)]
    for name in metadata_columns(index, read_json(file.with_name("audit.json"))):
        table[name] = _distribution(index[name])
    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), ORIGINAL: index_digest(file).encode()}
    with atomic(to) as temporary:
        pq.write_table(content.replace_schema_metadata(metadata), temporary)


def _ranked(names: pd.Series) -> pd.Series:
    """Return names by their rank in the alphabet: bootstrap draws depend on the order of groups."""
    return pd.Series(pd.factorize(names, sort=True)[0], index=names.index).map(ANONYMOUS.format)


def _numbered(names: pd.Series) -> pd.Series:
    """Return names by their first occurrence."""
    return pd.Series(pd.factorize(names)[0], index=names.index).map(ANONYMOUS.format)


def _distribution(values: pd.Series) -> list[float | str | None]:
    """Return a column with the same range and median, or the same most frequent values."""
    present, missing = values.dropna(), [None] * int(values.isna().sum())
    if pd.api.types.is_numeric_dtype(present) and not pd.api.types.is_bool_dtype(present):
        low, middle, high = present.quantile([0, 0.5, 1]).astype(float)
        replaced = [low, *[middle] * (len(present) - 2), high] if len(present) > 1 else present
        return [*map(float, replaced), *missing]
    counts = present.astype(str).value_counts()
    names = [*counts.index[:FREQUENT], *(f"value {n}" for n in range(FREQUENT, len(counts)))]
    return [*np.repeat(names, counts.to_numpy()).tolist(), *missing]
