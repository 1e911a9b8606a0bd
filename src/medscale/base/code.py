"""Digests of code."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from medscale.base.files import digest, sha256

PACKAGE = Path(__file__).parents[1]


ROOT = PACKAGE.parent.parent


@cache
def code_digest(script: str | Path) -> str:
    """SHA-256 over a script and every module of this package that it imports, directly or not.

    Snakemake does not track imported modules: this digest is a param of each stage, so that a change reruns the
    stages that use the changed code and no others.
    """
    todo, seen = [Path(script)], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += _imported(file)
    return digest(sorted((file.name, sha256(file)) for file in seen))


def _imported(file: Path) -> list[Path]:
    """Files of this package's modules that ``file`` names in imports or starts with ``python -m``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith("medscale.")
        ):
            names.add(node.value)
    found = []
    for name in names:
        if name.startswith(
            "medscale."
        ):  # the package itself holds what a person imports, which no stage uses
            base = PACKAGE.joinpath(*name.split(".")[1:])
            found += [
                path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()
            ]
    return found


@cache
def package_digest() -> str:
    """SHA-256 over all modules of this package: names the code also where files differ from the git commit."""
    return digest(
        sorted((str(file.relative_to(PACKAGE)), sha256(file)) for file in PACKAGE.rglob("*.py"))
    )


@cache
def module_digest(path: str | Path) -> str:
    """SHA-256 over a module's parsed code, without comments and docstrings."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = body[1:]
    return digest(ast.dump(tree))
