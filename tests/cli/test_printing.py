"""Facts on stdout: whole lines of text, or valid JSON that nothing else is mixed with."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from operator import mul
from pathlib import Path

import numpy as np
import pytest
import typer
from rich.table import Table

from medscale.base.console import COLOURS, Terminal
from medscale.cli.main import main
from medscale.cli.printing import findings_text, json_text

# Commands that print no facts about a study or a result.
WITHOUT_FACTS = {
    "serve": "runs until it is stopped",
    "data fetch": "prints commands to type, or downloads",
}
PATH = Path("/data") / ("very_long_folder_" * 12) / "image.png"
PRINT = """
from rich.table import Table
from medscale.cli.printing import findings_text, print_facts
path = "{path}"
table = Table("image", "prediction", title=f"of {{path}}", box=None)
table.add_row(path, path)
table.add_row("short", "")
print_facts({{}}, [table, path, *findings_text([("ok", "data", f"in {{path}}")])], False)
"""


def commands(group: object, names: tuple[str, ...] = ()) -> dict[str, object]:
    """All commands by the words that call them."""
    if not hasattr(group, "commands"):
        return {" ".join(names): group}
    return {
        words: command
        for name, part in group.commands.items()
        for words, command in commands(part, (*names, name)).items()
    }


COMMANDS = commands(typer.main.get_command(main))


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_each_command_that_prints_facts_has_json(words: str) -> None:
    options = [option for parameter in COMMANDS[words].params for option in parameter.opts]
    assert ("--json" in options) != (words in WITHOUT_FACTS)
    if words not in WITHOUT_FACTS:
        page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
        assert f"`medscale {words}" in page, f"docs/json.md does not describe `medscale {words}`"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_path_is_printed_whole_and_in_one_line(columns: int) -> None:
    process = subprocess.run(
        [sys.executable, "-c", PRINT.format(path=PATH)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": str(columns)},
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert process.stdout.count(str(PATH)) == 5
    assert [line for line in lines if line != line.rstrip()] == []


@dataclass(frozen=True)
class Fact:
    path: Path
    value: float


def test_json_is_valid_and_keeps_each_text() -> None:
    texts = ["\x1b[31mred", "a\u202eb", "Ärger", "\U0001f600", "\U000e0001", "\x9b2J", "\ud800"]
    facts = {
        "texts": texts,
        "fact": Fact(Path("a/b"), math.nan),
        "numbers": [np.float64(1.5), np.int64(2), math.inf],
        "array": np.zeros(2),
    }
    document = json_text(facts)
    assert json.loads(document) == {
        "texts": texts,
        "fact": {"path": "a/b", "value": None},
        "numbers": [1.5, 2, None],
        "array": [0.0, 0.0],
    }
    assert not set(document) & {"\x1b", "\u202e", "\x9b", "\U000e0001", "\ud800"}
    assert "Ärger" in document


def test_findings_are_lines_that_begin_with_their_level() -> None:
    lines = list(findings_text([("ok", "disk", "10 GB"), ("error", "memory", "[too] little")]))
    assert lines[0].split()[1:] == ["disk", "10", "GB"]
    assert r"\[too] little" in lines[1]


def test_a_table_is_no_wider_than_its_cells() -> None:
    console = Terminal(fits_terminal=False)
    console.file = StringIO()
    table = Table("a", "b", box=None, pad_edge=False)
    table.add_row("1", "x" * 300)
    table.add_row("22", "y")
    console.print(table)
    assert [len(line) for line in console.file.getvalue().splitlines()] == [5, 304, 5]


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_legible_on_black_and_on_white(name: str) -> None:
    """Contrast ratio after WCAG 2."""

    def luminance(colour: Iterable[int]) -> float:
        parts = (value / 255 for value in colour)
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(map(mul, (0.2126, 0.7152, 0.0722), linear))

    colour = Terminal().get_style(name).color
    assert colour is not None
    middle = luminance(colour.get_truecolor()) + 0.05
    assert min(middle / 0.05, 1.05 / middle) > 3.5
