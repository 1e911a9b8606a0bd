"""Images outside the training split that also are in it, or belong to a group that is in it."""

from __future__ import annotations

import pandas as pd


def shared_with_training(index: pd.DataFrame, column: str, split: str = "test") -> int:
    """Return the number of images of a split whose value of a column occurs in training too.

    Args:
        index: the images, with the columns ``split`` and ``column``.
        column: ``group`` (a patient, or images that look alike) or ``sha256`` (an exact copy).
    """
    training = index.loc[index["split"] == "train", column]
    return int(index.loc[index["split"] == split, column].isin(training).sum())
