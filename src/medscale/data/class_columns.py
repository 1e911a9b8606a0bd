"""Tables with a column for each class, whose value is 1 in the lines of its images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion

YES = {"1", "1.0", "True", "TRUE", "true"}
NO = {"0", "0.0", "False", "FALSE", "false"}
UNKNOWN = {"-1", "-1.0", ""}  # uncertain or not mentioned, as in CheXpert
JOIN = "|"  # between the classes of an image of several


def labels(file: Path, entries: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return the class of each line of a table: the column whose value is 1.

    Args:
        file: the table, for messages.
        entries: its lines as text; a missing value is None.
        columns: the columns, named like the classes.

    Returns:
        The names of the classes, joined by ``|`` in lines of several; None in lines of none.

    Raises:
        MedscaleError: when a column is missing, or has other values than 1, 0, -1 and empty ones.
    """
    for column in columns:
        if column not in entries:
            raise MedscaleError(
                f"{file}: no column {column} (source.label); "
                f"{suggestion(column, [*entries])}it has: {', '.join(map(str, entries))}"
            )
        if values := {*entries[column].fillna("")} - YES - NO - UNKNOWN:
            raise MedscaleError(
                f"{file}: the column {column} has the value {min(values)!r}; the columns of the "
                "classes (source.label) have 1 (or True) for the class of a line, and 0"
            )
    answers = entries[[*columns]].isin(YES)
    names = [JOIN.join(answers.columns[row]) or None for row in answers.to_numpy()]
    return pd.Series(names, entries.index, dtype=object)


def has_all(entries: pd.DataFrame, classes: Collection[str] | None) -> bool:
    """Return whether a table has a column with the name of each class of the study."""
    return bool(classes) and {*(classes or ())} <= {*entries}


def find(entries: pd.DataFrame, classes: Collection[str] | None) -> list[str]:
    """Return the columns of a table that each seem to stand for a class; empty if none do.

    These are columns of 1 and 0 of which at most one is 1 in a line, or columns with the names of
    the study's classes.
    """
    columns = [str(name) for name in entries if {*entries[name]} <= YES | NO]
    is_exclusive = len(columns) > 1 and entries[columns].isin(YES).sum(axis=1).max() <= 1
    study_columns = [*(classes or ())] if has_all(entries, classes) else []
    return columns if is_exclusive and {*study_columns} <= {*columns} else study_columns


def remedy(entries: pd.DataFrame, classes: Collection[str] | None = None) -> str:
    """Return the end of a sentence on a table without labels: a setting that reads them."""
    columns = find(entries, classes)
    if not columns:
        return ""
    return f"; if these columns stand for a class each, set source.label: [{', '.join(columns)}]"
