"""The house is as ARCHITECTURE.md says: its table of rooms is read, and imports are held against it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "medscale"
ROOMS = sorted(
    p.stem
    for p in PACKAGE.iterdir()
    if (p.is_dir() or p.suffix == ".py") and not p.name.startswith("_")
)


def allowed() -> dict[str, set[str]]:
    """Rooms of the package, and the rooms that each may import, from the table."""
    rooms = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `medscale."):
            names, _, imports = (cell.strip() for cell in line.strip("|").split("|"))
            everything = (
                set(ROOMS) if imports == "anything" else set(re.findall(r"`(\w+)`", imports))
            )
            rooms |= dict.fromkeys(re.findall(r"`(?:medscale\.)?(\w+)`", names), everything)
    return rooms


def imported(room: str) -> dict[str, str]:
    """Rooms that a room imports, with a file that does so."""
    found = {}
    for path in [*(PACKAGE / room).rglob("*.py"), *PACKAGE.glob(f"{room}.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {
                name.split(".")[1]: str(path) for name in names if name.startswith("medscale.")
            }
    return found


def test_every_room_stands_in_the_table() -> None:
    assert sorted(allowed()) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_table_allows(room: str) -> None:
    others = {
        name: where
        for name, where in imported(room).items()
        if name not in {room, *allowed()[room]}
    }
    assert not others, f"{room} imports what ARCHITECTURE.md does not allow: {others}"


def test_models_and_data_know_nothing_of_processes() -> None:
    for room in ("models", "data"):
        for path in (PACKAGE / room).rglob("*.py"):
            assert "torch.distributed" not in path.read_text(encoding="utf-8"), path
