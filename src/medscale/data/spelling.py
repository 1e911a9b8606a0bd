"""Spellings of names of patients and classes that mean the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NUMBER = re.compile(r"()0*(\d+?)(?:\.0+)?")  # 7, 07 or 7.0
_WHOLE = re.compile(r"-?\d+(?:\.0+)?")
_NUMBERED = re.compile(r"(\D+)0*(\d+?)")  # P7 or P007; in ICD-10, L40 and L40.0 are two diagnoses


def spelling(name: str) -> str:
    """Return a name without differences of capitals, spaces, leading zeros and an ending ``.0``.

    Spreadsheets and merged tables write one number in several of these ways. Characters without a
    width, which text copied from web pages contains, are no difference, either.
    """
    visible = "".join(mark for mark in name if unicodedata.category(mark) != "Cf")
    text = " ".join(unicodedata.normalize("NFKC", visible).casefold().split())
    match = _NUMBER.fullmatch(text) or _NUMBERED.fullmatch(text)
    return match[1] + match[2] if match else text


def without_zero_decimals(names: Iterable[str | None]) -> list[str | None]:
    """Return names without an ending ``.0`` if each is a whole number; None stays.

    Programs write the numbers of a column in this way where a cell of it is empty.
    """
    texts = list(names)
    if not all(text is None or _WHOLE.fullmatch(text) for text in texts):
        return texts
    return [text and text.partition(".")[0] for text in texts]


def several_spellings(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of distinct names that are spellings of one name, each sorted."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(spelling(name), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)
