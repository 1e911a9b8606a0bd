"""A command whose optional package is missing names the extra of pyproject.toml that has it."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from medscale.base import extras
from medscale.base.errors import MedscaleError

ROOT = Path(__file__).parents[2]


def calls() -> Iterator[tuple[str, str]]:
    """The file and the extra of each call of ``require`` with constants."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "require":
                texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if len(texts) > 1:
                    yield path.name, texts[1]


def test_extras_that_messages_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named_extras = list(calls())
    assert len(named_extras) >= 6
    assert {extra for _, extra in named_extras} <= project["optional-dependencies"].keys()


def test_the_missing_packages_are_named_in_one_sentence() -> None:
    extras.require("things", "serve", "json", "pathlib")
    with pytest.raises(MedscaleError) as error:
        extras.require("things", "serve", "json", "no_such_a", "no_such_b", note=", or do without")
    assert str(error.value) == (
        "things need no_such_a, no_such_b, which are not installed: "
        "pip install 'medscale[serve]', or do without"
    )
