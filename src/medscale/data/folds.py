"""Folds of a cross-validation: which fold tests an image, and the splits of each fold.

The index holds them as columns: ``fold`` (from 1), and ``split_fold_<n>`` with the split of each
image in fold n. Images are stored once, whatever the number of folds.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError

FOLD, PREFIX = "fold", "split_fold_"
# Returns the splits train and val of the rows that a fold does not test.
Divide = Callable[[pd.DataFrame], pd.Series]


def is_of_folds(column: object) -> bool:
    """Return whether a column of the index says which fold tests an image, or a fold's split."""
    return column == FOLD or str(column).startswith(PREFIX)


def divide(rows: pd.DataFrame, folds: int, seed: int, divide_rest: Divide) -> pd.DataFrame:
    """Divide images into folds of whole groups, stratified by class.

    The folds are those of ``sklearn.model_selection.StratifiedGroupKFold``: each group, those of
    the most unequal classes first, goes to the fold where the shares of the classes stay closest.

    Raises MedscaleError if a class has fewer groups than there are folds, or the index has columns
    of the names that folds take.

    Args:
        rows: ``label, group``, a row for each image, in the order of the index.
        folds: number of folds k.
        seed: determines the order of equal groups.
        divide_rest: divides the images that a fold does not test into train and val.

    Returns:
        Columns ``fold`` (int64, 1 to k) and ``split_fold_<n>`` for each fold.
    """
    if taken := [str(name) for name in rows if is_of_folds(name)]:
        raise MedscaleError(
            f"the images have a column {taken[0]!r}, which split.folds writes itself; rename it in "
            "the table of the images"
        )
    _check_groups(rows, folds)
    # Imported here, since it takes seconds, and each training imports this module.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.zeros(len(rows), np.int64)
    labels, groups = (pd.factorize(rows[name], sort=True)[0] for name in ("label", "group"))
    for number, (_, test) in enumerate(splitter.split(labels, labels, groups), start=1):
        fold[test] = number
    columns = {FOLD: pd.Series(fold, index=rows.index)}
    for number in range(1, folds + 1):
        rest = divide_rest(rows[fold != number])
        columns[f"{PREFIX}{number}"] = rest.reindex(rows.index, fill_value="test").astype(object)
    return pd.DataFrame(columns)


def count(rows: pd.DataFrame) -> int:
    """Return the number of folds of an index or of the rows of a shard set; 0 without folds."""
    return sum(re.fullmatch(rf"{PREFIX}\d+", str(name)) is not None for name in rows)


def of_fold(rows: pd.DataFrame, fold: int | None) -> pd.DataFrame:
    """Return the rows with the column ``split`` of a fold; None leaves the rows as they are.

    Raises MedscaleError where the rows have no such fold.
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
    """Refuse an index whose folds leak: each image is tested once, and a group by one fold.

    In no fold may a group stand in two splits. Without folds nothing is checked. Raises
    MedscaleError, naming fold and group.
    """
    if not count(index):
        return
    tested = np.zeros(len(index), np.int64)
    for fold in range(1, count(index) + 1):
        split = index[f"{PREFIX}{fold}"]
        tested += (split == "test").to_numpy()
        splits = split.groupby(index["group"]).nunique()
        if (splits > 1).any():
            raise MedscaleError(
                f"fold {fold} has images of the group {splits.idxmax()!r} in {splits.max()} "
                "splits, so its scores would be too good; make the index again: snakemake data"
            )
    if (tested != 1).any():
        raise MedscaleError(
            f"{int((tested != 1).sum())} images are not tested by exactly one fold; make the index "
            "again: snakemake data"
        )


def test_to_train(index: pd.DataFrame) -> float:
    """Return the number of test images per training image, mean over the folds of an index."""
    sizes = [index[f"{PREFIX}{fold}"].value_counts() for fold in range(1, count(index) + 1)]
    return float(np.mean([size["test"] / size["train"] for size in sizes]))


def _check_groups(rows: pd.DataFrame, folds: int) -> None:
    """Raise MedscaleError if a class has fewer groups than there are folds."""
    groups = rows.groupby("label", observed=True)["group"].nunique()
    few = groups[groups < folds]
    if len(few):
        listed = ", ".join(f"{name!r} has {number}" for name, number in few.items())
        raise MedscaleError(
            f"split.folds is {folds}, but a class has fewer groups (patients or clusters of "
            f"near-duplicates): {listed}; set a smaller split.folds, or add images"
        )
