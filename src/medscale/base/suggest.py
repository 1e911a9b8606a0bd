"""Names that a misspelt word may stand for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LIKENESS = 0.65  # from 0 to 1, of names that one may be meant by the other


def suggestion(word: object, names: Iterable[str]) -> str:
    """Return the question ``did you mean 'name'? ``, or an empty text where no name is close.

    Upper and lower case, and ``-`` in place of ``_``, are no difference.
    """
    by_key = {_key(name): name for name in names}
    close = get_close_matches(_key(str(word)), by_key, 1, LIKENESS)
    return f"did you mean {by_key[close[0]]!r}? " if close else ""


def _key(name: str) -> str:
    return name.lower().replace("-", "_")
