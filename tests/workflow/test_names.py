"""Names of functions, parameters, variables and fields are nouns, not participles or pronouns."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from medscale.base.code import ROOT

PACKAGE = ROOT / "src" / "medscale"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
FOLDERS = [*ROOMS, ROOT / "bench", ROOT / "tools"]
REFUSED = {
    *("asked", "begun", "done", "each", "found", "given", "gone", "got", "held", "here", "it"),
    *("kept", "known", "made", "mine", "named", "nothing", "one", "others", "ours", "said", "says"),
    *("seen", "sent", "shown", "taken", "takes", "tells", "theirs", "there", "told", "took"),
    *("wanted", "wants", "written"),
}
ALLOWED = {
    # An option of the demo data, which configurations and commands name.
    ("src/medscale/data/demo/skin.py", "each")
}


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each definition; a field of a class counts as a parameter of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def refused(tree: ast.AST) -> list[tuple[int, str]]:
    """The names that are no nouns, by line."""
    return sorted({place for place in names(tree) if place[1].strip("_") in REFUSED})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_names_are_nouns(folder: Path) -> None:
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for line, name in refused(ast.parse(path.read_text(encoding="utf-8"))):
            if (file, name) not in ALLOWED:
                wrong.append(f"{file}:{line}: {name}")
    assert not wrong


def test_each_kind_of_definition_is_checked() -> None:
    text = "def made(one, *, seen=1):\n    self.told = [kept for kept in x]\n    named: int = 2\n"
    assert [name for _, name in refused(ast.parse(text))] == [
        "made",
        "one",
        "seen",
        "kept",
        "told",
        "named",
    ]
    assert not refused(ast.parse(Path(__file__).read_text(encoding="utf-8")))
