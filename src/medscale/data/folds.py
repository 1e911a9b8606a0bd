"""Folds of a cross-validation: the test fold of each image, and the splits of each fold.

The index has the columns ``fold`` (from 1) and ``split_fold_<n>``, the split of each image in fold
n. Images are stored once for any number of folds.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError

FOLD, PREFIX = "fold", "split_fold_"
# Function that divides the rows which a fold does not test into train and val.
Divide = Callable[[pd.DataFrame], pd.Series]


def is_of_folds(column: object) -> bool:
    """Return whether a column of the index holds the fold of images, or the split of a fold."""
    return column == FOLD or str(column).startswith(PREFIX)


def is_split(column: object) -> bool:
    """Return whether a column of the index holds the split of each image in a fold."""
    return re.fullmatch(rf"{PREFIX}\d+", str(column)) is not None


def divide(rows: pd.DataFrame, folds: int, seed: int, divide_others: Divide) -> pd.DataFrame:
    """Divide images into folds of whole groups, stratified by class.

    The folds are those of ``sklearn.model_selection.StratifiedGroupKFold``. Groups with the most
    unequal classes are assigned first, each to the fold in which the shares of the classes stay
    closest to each other.

    Args:
        rows: ``label, group``, one row for each image, in the order of the index.
        folds: number of folds k.
        seed: seed for the order of equal groups.
        divide_others: function that divides the images which a fold does not test into train and
            val.

    Returns:
        Columns ``fold`` (int64, 1 to k) and ``split_fold_<n>`` for each fold.

    Raises:
        MedscaleError: when a class has fewer groups than there are folds, or the images have
            columns with the names that folds take.
    """
    if reserved := [str(name) for name in rows if is_of_folds(name)]:
        raise MedscaleError(
            f"the images have a column {reserved[0]!r}, a name that split.folds reserves; rename "
            "it in the table of the images"
        )
    _check_groups(rows, folds)
    # Imported here, since the import takes seconds and each training imports this module.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.zeros(len(rows), np.int64)
    labels, groups = (pd.factorize(rows[name], sort=True)[0] for name in ("label", "group"))
    for number, (_, test) in enumerate(splitter.split(labels, labels, groups), start=1):
        fold[test] = number
    columns = {FOLD: pd.Series(fold, index=rows.index)}
    for number in range(1, folds + 1):
        parts = divide_others(rows[fold != number])
        columns[f"{PREFIX}{number}"] = parts.reindex(rows.index, fill_value="test").astype(object)
    return pd.DataFrame(columns)


def count(rows: pd.DataFrame) -> int:
    """Return the number of folds of an index or of the rows of a shard set; 0 without folds."""
    return sum(map(is_split, rows))


def of_fold(rows: pd.DataFrame, fold: int | None) -> pd.DataFrame:
    """Return the rows with the splits of a fold as ``split``; None returns them unchanged.

    Raises:
        MedscaleError: when the rows have no such fold.
    """
    if fold is None:
        return rows
    if f"{PREFIX}{fold}" not in rows:
        raise MedscaleError(
            f"there is no fold {fold}: the images are divided into {count(rows) or 'no'} folds; "
            "make the index again: snakemake data"
        )
    return rows.assign(split=rows[f"{PREFIX}{fold}"])


def check(index: pd.DataFrame) -> None:
    """Check that each image is tested once, and that no group is in two splits of a fold.

    Without folds there is nothing to check.

    Raises:
        MedscaleError: when the folds leak; the message names fold and group.
    """
    if not count(index):
        return
    test_counts = np.zeros(len(index), np.int64)
    for fold in range(1, count(index) + 1):
        split = index[f"{PREFIX}{fold}"]
        test_counts += (split == "test").to_numpy()
        splits = split.groupby(index["group"]).nunique()
        if (splits > 1).any():
            raise MedscaleError(
                f"fold {fold} has images of the group {splits.idxmax()!r} in {splits.max()} "
                "splits, so its scores would be too good; make the index again: snakemake data"
            )
    if (test_counts != 1).any():
        raise MedscaleError(
            f"{int((test_counts != 1).sum())} images are not tested by exactly one fold; make the "
            "index again: snakemake data"
        )


def test_to_train(index: pd.DataFrame) -> float:
    """Return the number of test images per training image, mean over the folds of an index."""
    sizes = [index[f"{PREFIX}{fold}"].value_counts() for fold in range(1, count(index) + 1)]
    return float(np.mean([size["test"] / size["train"] for size in sizes]))


def _check_groups(rows: pd.DataFrame, folds: int) -> None:
    """Raise MedscaleError if a class has fewer groups than there are folds."""
    groups = rows.groupby("label", observed=True)["group"].nunique()
    small_classes = groups[groups < folds]
    if len(small_classes):
        counts_text = ", ".join(f"{name!r} has {number}" for name, number in small_classes.items())
        raise MedscaleError(
            f"split.folds is {folds}, but a class has fewer groups (patients, or clusters of "
            f"near-duplicates) than that: {counts_text}; set a smaller split.folds, or add images"
        )
