"""Metadata as input: columns of the index as numbers for a network; unknown is a value of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.section import Strict


class Encoding(Strict):
    """How one column becomes features: numbers by ``mean`` and ``scale``, or words by ``words``.

    A column of numbers gives two features: its value in standard deviations from the mean of the known training values
    (0 where it is not known), and 1 where it is known. A column of words gives one feature a word that the training
    split has, in alphabetical order, and one that is 1 for all else: unknown, and words that training never saw.
    """

    column: str
    mean: float = 0.0
    scale: float = 1.0
    words: list[str] | None = None

    @property
    def features(self) -> int:
        """How many features it gives."""
        return 2 if self.words is None else len(self.words) + 1


def encode(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray | None:
    """Features of each sample, fitted on the training split alone; see ``fit`` and ``apply``."""
    return apply(fit(rows, columns), rows)


def fit(rows: pd.DataFrame, columns: Sequence[str]) -> list[Encoding]:
    """How each column becomes features, from the training split alone.

    Args:
        rows: ``split`` and the columns, a sample a row.
        columns: which to use.

    Raises:
        MedscaleError: for a column that is not there, or that no training image has a value of.
    """
    if absent := [name for name in columns if name not in rows]:
        has = (
            ", ".join(c for c in rows.columns if c not in ("id", "label", "split", "group"))
            or "none"
        )
        raise MedscaleError(
            f"model.metadata names {', '.join(absent)}; the study's images have: {has}"
        )
    return [_fitted(rows[name], rows["split"] == "train") for name in columns]


def apply(encodings: Sequence[Encoding], rows: pd.DataFrame) -> np.ndarray | None:
    """Features of each row, float32, shape N,F; None where there are no encodings.

    Raises:
        MedscaleError: when a column of numbers has something else.
    """
    if not encodings:
        return None
    return np.concatenate([_features(one, rows[one.column]) for one in encodings], axis=1)


def _fitted(column: pd.Series, training: pd.Series) -> Encoding:
    known = column[training].dropna()
    if known.empty:
        raise MedscaleError(
            f"model.metadata: no training image has a value of {column.name!r}; leave it out"
        )
    if pd.api.types.is_numeric_dtype(column):
        return Encoding(
            column=str(column.name), mean=float(known.mean()), scale=float(known.std(ddof=0)) or 1.0
        )
    return Encoding(column=str(column.name), words=sorted(set(known.astype(str))))


def _features(encoding: Encoding, column: pd.Series) -> np.ndarray:
    if encoding.words is None:
        try:
            values = column.astype("float64")
        except (TypeError, ValueError):
            raise MedscaleError(
                f"metadata: {encoding.column} is a number, which {column.tolist()} are not all"
            ) from None
        scaled = (values - encoding.mean) / encoding.scale
        return np.stack([scaled.fillna(0.0), values.notna()], axis=1).astype(np.float32)
    codes = pd.Index(encoding.words).get_indexer(
        pd.Index(column.astype("str").where(column.notna(), None))
    )
    return np.eye(encoding.features, dtype=np.float32)[
        np.where(codes < 0, len(encoding.words), codes)
    ]
