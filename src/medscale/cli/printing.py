"""Printing of facts on stdout: text for a person, or one JSON document for a program.

A command that prints facts takes the option ``AsJson`` and ends with ``print_facts``. Progress,
notes and errors go to stderr (``base/log.py``, ``base/errors.py``), so that stdout holds nothing
but the facts. The keys of the documents are described in docs/json.md; a key names its unit.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from medscale.base.console import Terminal, plain
from medscale.base.text import visible

AsJson = Annotated[bool, typer.Option("--json", help="print the facts as JSON (docs/json.md)")]
MARK = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "error": "[bold][red]error[/][/]"}
out = Terminal(fits_terminal=False)


def print_facts(facts: Mapping[str, Any], text: Iterable[RenderableType], as_json: bool) -> None:
    """Print facts as one JSON document, or else the text about them.

    Args:
        facts: values that ``json_text`` takes.
        text: lines with rich's markup, and tables; it is not iterated if JSON is printed.
        as_json: the option ``--json``.
    """
    if as_json:
        print(json_text(facts))
        return
    for part in text:
        out.print(part)


def json_text(facts: Mapping[str, Any]) -> str:
    """Return valid JSON (RFC 8259); numbers that JSON lacks, such as NaN, become null.

    Letters that a terminal would obey or not show are written as escapes, so that both a terminal
    and a program read the text as it is. Paths, dataclasses and NumPy's numbers are converted.
    """
    document = json.dumps(_json_value(facts), indent=2, ensure_ascii=False, allow_nan=False)
    if document.isascii():
        return document
    # The escape of a letter beyond U+FFFF consists of two surrogates.
    return "".join(
        letter if letter.isascii() or visible(letter) == letter else json.dumps(letter)[1:-1]
        for letter in document
    )


def findings_text(rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """Yield a line for each finding: its level (ok, note or error), its subject, its text."""
    rows = list(rows)
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for level, *texts in rows:
        subject = "".join(f"{plain(text):<{widths[1]}} " for text in texts[:-1])
        mark = MARK[level] + " " * (widths[0] - len(level))
        yield f"{mark} {subject}{plain(texts[-1], lines=True)}"


def _json_value(value: Any) -> Any:
    """Return a value of Python's JSON types that stands for another value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_value(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return _json_value(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
