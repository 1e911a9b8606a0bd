"""The messages of pydantic on wrong values, in words that need no knowledge of Python."""

from __future__ import annotations

from typing import Any

# By pydantic's type of an error, without its ending ``_type`` or ``_parsing``.
EXPECTED = {
    "bool": "true or false",
    "dict": "settings with a name each",
    "float": "a number",
    "int": "a whole number",
    "int_from_float": "a whole number",
    "list": "a list such as [a, b]",
    "model": "a section of settings",
    "path": "a path",
    "string": "text",
}
LENGTHS = {"too_short": ("fewer", "min_length"), "too_long": ("more", "max_length")}


def in_words(item: Any) -> str:
    """Return the message of an item of pydantic's ``ValidationError.errors()``."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in LENGTHS and "actual_length" in context:
        word, limit = LENGTHS[kind]
        entries = "entry" if context[limit] == 1 else "entries"
        return f"must not have {word} than {context[limit]} {entries}"
    if kind == "string_too_short" and item["input"] == "":
        return "is empty"
    expected = EXPECTED.get(kind.removesuffix("_type").removesuffix("_parsing"))
    if expected is not None:
        return f"must be {expected}"
    text: str = item["msg"].removeprefix("Value error, ")
    return text.replace("Input should", "must", 1)
