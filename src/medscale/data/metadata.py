"""Metadata as input: columns of the index as numbers for a network; unknown is a value of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.errors import MedscaleError


def encode(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray | None:
    """Features of each sample, fitted on the training split alone.

    A column of numbers gives two features: its value in standard deviations from the mean of the known training values
    (0 where it is not known), and 1 where it is known. A column of words gives one feature a word that the training
    split has, in alphabetical order, and one that is 1 for all else: unknown, and words that training never saw.

    Args:
        rows: ``split`` and the columns, a sample a row.
        columns: which to use; none: None is returned.

    Returns:
        float32, shape N,F.

    Raises:
        MedscaleError: for a column that is not there, or that no training image has a value of.
    """
    if not columns:
        return None
    if absent := [name for name in columns if name not in rows]:
        has = ", ".join(c for c in rows.columns if c not in ("id", "label", "split", "group")) or "none"
        raise MedscaleError(f"model.metadata names {', '.join(absent)}; the study's images have: {has}")
    return np.concatenate([_features(rows[name], rows["split"] == "train") for name in columns], axis=1)


def _features(column: pd.Series, training: pd.Series) -> np.ndarray:
    known = column[training].dropna()
    if known.empty:
        raise MedscaleError(f"model.metadata: no training image has a value of {column.name!r}; leave it out")
    if pd.api.types.is_numeric_dtype(column):
        scaled = (column.astype("float64") - known.mean()) / (known.std(ddof=0) or 1.0)
        return np.stack([scaled.fillna(0.0), column.notna()], axis=1).astype(np.float32)
    words = sorted(set(known.astype(str)))
    codes = pd.Index(words).get_indexer(pd.Index(column.astype("str").where(column.notna(), None)))
    return np.eye(len(words) + 1, dtype=np.float32)[np.where(codes < 0, len(words), codes)]
