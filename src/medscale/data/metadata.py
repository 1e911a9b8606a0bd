"""Encoding of metadata columns of the index as features of a network.

An unknown value is a separate feature.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from medscale.base.errors import MedscaleError
from medscale.base.section import Strict

COMMA = re.compile(r"[+-]?\d+,\d+")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # a number that may be one with a decimal comma


class Encoding(Strict):
    """The encoding of one column: numbers by ``mean`` and ``scale``, or words by ``words``.

    A column of numbers has two features: the value in standard deviations from the mean of the
    known training values (0 if unknown), and 1 if the value is known. A column of words has one
    feature for each word of the training split, in alphabetical order, and one for all other
    values: unknown values, and words that are not in the training split.
    """

    column: str  # name of the column
    mean: float = 0.0  # mean of the known training values
    scale: float = Field(1.0, gt=0)  # their standard deviation
    words: list[str] | None = None  # words of the training split; None for numbers

    @property
    def features(self) -> int:
        """Number of features."""
        return 2 if self.words is None else len(self.words) + 1


def numbers(
    texts: Sequence[str | None], *, decimal_comma: bool = False
) -> tuple[Sequence[Any], list[str]]:
    """Convert a column of text to numbers if all its values are numbers.

    Numbers with a leading zero, such as 007, are codes, and therefore words.

    Args:
        texts: the values; None is a missing value.
        decimal_comma: whether a comma may be a decimal comma. It is not if all commas of the column
            may divide thousands, as in 1,250, or if a value has a point.

    Returns:
        The values as floats (NaN for a missing value), or unchanged if a value is a word. Second,
        the words that may be mistakes: those of a column with numbers, with or without a comma.
    """
    cells = [text for text in texts if text is not None]
    commas = [text for text in cells if COMMA.fullmatch(text)]
    is_clear = not all(map(THOUSANDS.fullmatch, commas)) and not any("." in cell for cell in cells)
    converts = decimal_comma and is_clear
    values = {text: number(text.replace(",", ".") if converts else text) for text in cells}
    words = [text for text in cells if values[text] is None]
    if cells and not words:
        return [math.nan if text is None else values[text] for text in texts], []
    return texts, words if commas or len(words) < len(cells) else []


def number(text: str) -> float | None:
    """Return a text as a finite number; None for a word, or a code such as 007."""
    digits = text.strip().lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def encode(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray | None:
    """Return the features of each sample, fitted on the training split; see ``fit``, ``apply``."""
    return apply(fit(rows, columns), rows)


def fit(rows: pd.DataFrame, columns: Sequence[str]) -> list[Encoding]:
    """Return the encoding of each column, fitted on the training split.

    Args:
        rows: ``split`` and the columns, one row for each sample.
        columns: names of the columns.

    Raises:
        MedscaleError: for a column that is missing, or has no value in the training split.
    """
    if missing := [name for name in columns if name not in rows]:
        available = [c for c in rows.columns if c not in ("id", "label", "split", "group")]
        raise MedscaleError(
            f"model.metadata names {', '.join(missing)}; the study's images have: "
            f"{', '.join(available) or 'none'}"
        )
    return [_fit_column(rows[name], rows["split"] == "train") for name in columns]


def apply(encodings: Sequence[Encoding], rows: pd.DataFrame) -> np.ndarray | None:
    """Return the features of each row, float32, shape N,F; None without encodings.

    Raises:
        MedscaleError: when a column of numbers has a value that is not a number.
    """
    if not encodings:
        return None
    return np.concatenate([_features(e, rows[e.column]) for e in encodings], axis=1)


def _fit_column(column: pd.Series, is_training: pd.Series) -> Encoding:
    training_values = column[is_training].dropna()
    name = str(column.name)
    if training_values.empty:
        raise MedscaleError(
            f"model.metadata: no training image has a value of {name!r}; remove it from the list"
        )
    if pd.api.types.is_numeric_dtype(column):
        # By rounding, the computed standard deviation of equal values can be slightly above 0.
        if training_values.nunique() == 1:
            return Encoding(column=name, mean=float(training_values.iloc[0]))
        scale = float(training_values.std(ddof=0))
        return Encoding(column=name, mean=float(training_values.mean()), scale=scale)
    return Encoding(column=name, words=sorted(set(map(word, training_values))))


def word(value: Any) -> str:
    """Return a value of a column of words as text; a whole number has no decimal point."""
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)


def _is_number(value: Any) -> bool:
    try:
        return not math.isinf(float(value))
    except OverflowError:
        return False
    except (TypeError, ValueError):
        return value is None or value is pd.NA


def _features(encoding: Encoding, column: pd.Series) -> np.ndarray:
    if encoding.words is None:
        try:
            values = column.astype("float64")  # reads texts of numbers as well
            is_usable = not np.isinf(values).any()
        except (TypeError, ValueError, OverflowError):
            is_usable = False
        if not is_usable:
            faulty_value = next(value for value in column if not _is_number(value))
            raise MedscaleError(
                f"metadata: {encoding.column} is {faulty_value!r}, where the network takes a number"
            )
        scaled = (values - encoding.mean) / encoding.scale
        return np.stack([scaled.fillna(0.0), values.notna()], axis=1).astype(np.float32)
    words = pd.Index([None if pd.isna(value) else word(value) for value in column], dtype=object)
    codes = pd.Index(encoding.words).get_indexer(words)
    codes = np.where(codes < 0, len(encoding.words), codes)  # -1: not among the known words
    encoded = np.zeros((len(codes), encoding.features), np.float32)
    encoded[np.arange(len(codes)), codes] = 1
    return encoded
