"""Reader of index.parquet, the table with a row for each image of a study."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from medscale.base.errors import MedscaleError
from medscale.base.files import read_table, sha256

# Key of the metadata of a Parquet file: SHA-256 of the original, in a copy without file names.
ORIGINAL = b"medscale.original"
REMEDY = "make it again by `snakemake data`"
# Remedy for images that changed after they were indexed. Each command compares them with the index.
NEW_INDEX = "the same command makes the index again"


def read_index(path: str | Path) -> pd.DataFrame:
    """Read the rows in the order of their ids: ``id, label, split, group`` and metadata.

    The order of the categories of ``label`` is the order of the classes.

    Raises:
        MedscaleError: when the file is missing or damaged, or its labels are not categorical.
    """
    if not Path(path).is_file():
        raise MedscaleError(f"{path} does not exist; create it first: snakemake data")
    index = read_table(path, REMEDY)
    if not {"id", "label"} <= set(index) or not isinstance(
        index["label"].dtype, pd.CategoricalDtype
    ):
        raise MedscaleError(
            f"{path} is not an index: it has no column `id`, or no column `label` with the order "
            "of the classes; delete it and run again"
        )
    return index.sort_values("id", ignore_index=True)


def index_digest(path: str | Path) -> str:
    """Return the SHA-256 of index.parquet; a copy without file names has that of its original.

    Raises:
        MedscaleError: when the file is missing or damaged, or the digest that a copy holds is not a
            SHA-256.
    """
    try:
        original = (pq.read_schema(path).metadata or {}).get(ORIGINAL)
    except (OSError, ValueError) as error:
        raise MedscaleError(f"{path} cannot be read ({error}); {REMEDY}") from None
    if original is None:
        return sha256(path)
    if re.fullmatch(rb"[0-9a-f]{64}", original) is None:
        raise MedscaleError(f"{path}: the digest of its original is no SHA-256; restore it again")
    return original.decode()
