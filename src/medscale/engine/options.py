"""Limits of a network's options, which may come from a stranger's result folder."""

from __future__ import annotations

from typing import Any

MOST_OPTIONS, LARGEST_OPTION, LONGEST_OPTION = 100, 100_000, 200


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a network unchanged, after a check of their number and size.

    Raises ValueError for large numbers, long texts or lists, and more than three levels of lists or
    mappings.
    """
    if not _is_small(options, depth=3):
        raise ValueError(
            f"at most {MOST_OPTIONS} options: numbers up to {LARGEST_OPTION:,}, texts up to"
            f" {LONGEST_OPTION} characters, and lists of them"
        )
    return options


def _is_small(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_OPTION
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int | float):
        return abs(value) <= LARGEST_OPTION  # false for NaN
    if not isinstance(value, dict | list | tuple) or depth == 0 or len(value) > MOST_OPTIONS:
        return False
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return all(_is_small(part, depth - 1) for part in parts)
