"""The house is as ARCHITECTURE.md says: its tables are read, and the code is compared with them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from medscale.base import code

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "medscale"
MODULES = sorted(PACKAGE.rglob("*.py"))
WIDTH = 100
WRITTEN = ("gpu.md", "sizing.md")  # pages whose tables are the output of a command
PROSE = ("src/**/*.py", "src/**/*.j2", "scripts/*.py", "rules/*.smk", "Snakefile", "docs/**/*.md")


def table(heading: str) -> Iterator[list[str]]:
    """Cells of the rows of the first table below a heading of ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert f"# {heading}\n" in text, f"ARCHITECTURE.md has no heading {heading!r}"
    section = text.split(f"# {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    for row in rows[2:]:  # after the heading and the rule below it
        yield [cell.strip() for cell in row.strip("|").split("|")]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def places(heading: str) -> set[str]:
    """Files and folders that the table below a heading names."""
    cells = names(" ".join(cell for row in table(heading) for cell in row))
    return {cell for cell in cells if "/" in cell or cell.endswith(".yaml")}


@cache
def allowed() -> dict[str, set[str]]:
    """Rooms that each room may import besides itself; `a/*` stands for all rooms below `a`."""
    return {
        room: {"*"} if imports == "anything" else names(imports)
        for cell, _, imports in table("Rooms")
        for room in names(cell)
    }


def room_of(module: str) -> str:
    """The room of a module: the longest listed one that holds it."""
    path = "/".join(module.split(".")[1:])
    rooms = [room for room in allowed() if path == room or path.startswith(f"{room}/")]
    return max(rooms, key=len, default=path)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {module_name(path): path for path in MODULES}


def imports(node: ast.AST) -> Iterator[str]:
    """Modules of the package that code imports, in functions too; not for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in KNOWN)
        elif isinstance(child, ast.ImportFrom) and child.module:
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                if full in KNOWN or child.module in KNOWN:
                    yield full if full in KNOWN else child.module
        yield from imports(child)


@cache
def graph() -> dict[str, set[str]]:
    trees = {name: ast.parse(path.read_bytes()) for name, path in KNOWN.items()}
    return {name: set(imports(tree)) for name, tree in trees.items()}


def test_the_package_has_at_most_twelve_entries_and_each_stands_in_the_table():
    entries = {p.stem for p in PACKAGE.iterdir() if not p.name.startswith("_")}
    assert len(entries) <= 12
    assert entries == {room.split("/")[0] for room in allowed()}
    for room in allowed():
        assert (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file(), room


def test_each_place_for_a_change_exists():
    paths = places("Architecture") | places("Where to change what")
    assert len(paths) > 80
    missing = [p for p in paths if not any((root / p).exists() for root in (PACKAGE, ROOT))]
    assert not missing


def test_a_room_imports_what_the_table_allows():
    violations = set()
    for module, imported_modules in graph().items():
        room = room_of(module)
        may = allowed().get(room, {"*"})
        for imported_room in map(
            room_of, imported_modules
        ):  # "" is medscale itself: the names for users
            parents = {f"{parent}/*" for parent in _parents(imported_room)}
            if (
                imported_room not in (room, "")
                and "*" not in may
                and not may & ({imported_room} | parents)
            ):
                violations.add(f"{module} ({room}) imports {imported_room}")
    assert not violations, "ARCHITECTURE.md does not allow:\n" + "\n".join(sorted(violations))


def _parents(room: str) -> list[str]:
    parts = room.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def test_no_module_imports_itself_through_others():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail("circle of imports: " + " -> ".join(error.args[1]))


def test_models_and_data_know_nothing_of_processes():
    for room in ("engine/models", "data"):
        for path in (PACKAGE / room).rglob("*.py"):
            assert "torch.distributed" not in path.read_text(encoding="utf-8"), path


def test_rules_are_short_and_have_no_lambda():
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if re.search(r"\blambda\b", line)], path
        assert len(lines) < 80, f"{path} has {len(lines)} lines"


def test_lines_end_at_100_columns():
    """The tables that `make bench-gpu` and `medscale size` write may have longer rows."""
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for pattern in PROSE
        for path in sorted(ROOT.glob(pattern))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > WIDTH and not (path.name in WRITTEN and line.startswith("|"))
    ]
    assert not long, f"{len(long)} lines are too long: {' '.join(long[:20])}"


def test_what_reruns_when_is_as_the_table_says():
    table_rows = {
        script: names(rooms)
        for cell, rooms, *_ in table("What reruns when")
        for script in names(cell)
    }
    scripts = {
        script.name: {
            "/".join(file.parent.relative_to(code.PACKAGE).parts[:2])
            for file in code.modules(script).values()
        }
        for script in (ROOT / "scripts").glob("*.py")
    }
    assert table_rows == scripts
