"""Suggestion of the name that a misspelt word may mean."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LIKENESS = 0.65  # smallest similarity of a suggestion (``difflib``), from 0 to 1


def suggestion(word: object, names: Iterable[str]) -> str:
    """Return the question ``did you mean 'name'? ``, or an empty text if no name is similar.

    Upper and lower case count as equal, and so do ``-`` and ``_``.
    """
    by_key = {_key(name): name for name in names}
    close = get_close_matches(_key(str(word)), by_key, 1, LIKENESS)
    return f"did you mean {by_key[close[0]]!r}? " if close else ""


def _key(name: str) -> str:
    return name.lower().replace("-", "_")
