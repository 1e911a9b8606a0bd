"""Digests of code follow what is imported and executed, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medscale.base import code
from medscale.base.errors import MedscaleError

SCRIPTS = code.ROOT / "scripts"
PLAIN = '''"""A module."""
from typing import TYPE_CHECKING
from medscale.base.files import digest

if TYPE_CHECKING:
    import pandas as pd


class Box:
    """A class."""

    side: int = 3
    """Its side."""
    height: int = Field(3, title="Height", ge=1)


def area(box: Box) -> int:
    """Return the area."""
    return box.side**2  # square
'''


def write_file(folder: Path, text: str) -> Path:
    path = folder / "module.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("# square", "# a square", False),
        ('"""A module."""', '"""Another text."""', False),
        ('"""Return the area."""', '"""Return\n\n    the area."""', False),
        ('"""Its side."""', "", False),
        ('title="Height"', 'title="How high", description="of the box"', False),
        ("ge=1", "ge=2", True),
        ("return box.side**2", "return (\n        box.side ** 2\n    )", False),
        ("import pandas as pd", "import torch", False),
        ("box.side**2", "box.side**3", True),
        ("side: int = 3", 'side: int = "3"', True),
        ("import digest", "import sha256", True),
    ],
)
def test_only_what_is_executed_changes_the_digest(tmp_path, old, new, changes):
    before = code.module_digest(write_file(tmp_path, PLAIN))
    assert old in PLAIN
    after = code.module_digest(write_file(tmp_path, PLAIN.replace(old, new)))
    assert (before != after) is changes


def test_modules_are_those_that_are_imported_or_started(tmp_path):
    script = write_file(
        tmp_path,
        '"""Not medscale.serve.predict."""\n'
        "from typing import TYPE_CHECKING\n"
        "from medscale.base import errors\n"
        "if TYPE_CHECKING:\n    from medscale.report import style\n"
        "def start():\n    import medscale.base.timing\n"
        '    return ["-m", "medscale.engine.run"], "medscale.", "medscale.sif"\n',
    )
    names = set(code.modules(script))
    assert sorted(names) == list(code.modules(script))  # the same digest in each process
    assert {"medscale.base", "medscale.base.errors", "medscale.base.timing"} <= names
    assert {"medscale.engine", "medscale.engine.run"} <= names
    assert "medscale" not in names
    assert not [name for name in names if name.startswith(("medscale.serve", "medscale.report"))]


def test_the_file_of_each_stage_is_followed():
    for script in SCRIPTS.glob("*.py"):
        names = set(code.modules(script))
        assert "medscale.base.errors" in names, script
        assert code.code_digest(script) == code.digest(code.module_digests(script))
    train = set(code.modules(SCRIPTS / "train.py"))
    assert "medscale.engine.train.loop" in train
    assert not [name for name in train if name.startswith(("medscale.serve", "medscale.config"))]


def test_a_file_that_cannot_be_followed_is_named(tmp_path):
    with pytest.raises(MedscaleError, match=r"module\.py: line 1: .*relative import"):
        code.modules(write_file(tmp_path, "from . import sibling\n"))
    with pytest.raises(MedscaleError, match=r"module\.py: invalid syntax"):
        code.modules(write_file(tmp_path, "a b\n"))


def test_parsed_files_are_kept_for_the_next_process(tmp_path):
    text = (
        "from medscale.base import code\n"
        f"print(code.code_digest({str(SCRIPTS / 'demo_data.py')!r}), len(code._cache().files))\n"
        "code.ast.parse = None\n"
        f"print(code.code_digest({str(SCRIPTS / 'write_json.py')!r}))\n"
    )
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}

    def run(text: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", text]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    first = text.replace("code.ast.parse = None\n", "")
    cold = run(first)
    assert cold.returncode == 0, cold.stderr
    (cache_file,) = tmp_path.rglob(code.CACHE.name)
    assert len(json.loads(cache_file.read_text(encoding="utf-8"))["files"]) > 5
    warm = run(text)
    assert warm.returncode == 0, warm.stderr
    assert cold.stdout.split()[::2] == warm.stdout.split()[::2]
    cache_file.write_text("{", encoding="utf-8")
    assert run(first).stdout == cold.stdout


def test_digests_are_computed_once_per_state_of_the_code(monkeypatch):
    digests = iter("abc")
    cache = code.Cache()
    monkeypatch.setattr(cache, "_save", lambda: None)
    monkeypatch.setattr(code, "_cache", lambda: cache)
    for state, parts, expected in (
        ("1", ["train"], "a"),
        ("1", ["train"], "a"),
        ("1", ["index"], "b"),
        ("2", ["train"], "c"),
    ):
        monkeypatch.setattr(code, "_state", lambda state=state: state)
        assert code.from_cache("test", parts, lambda: next(digests)) == expected


def test_the_state_of_the_code_covers_modules_scripts_and_templates(tmp_path, monkeypatch):
    """Hidden files do not count, such as the link by which Emacs locks an unsaved file."""
    package, scripts = tmp_path / "package", tmp_path / "scripts"
    for name in ("package/a/module.py", "package/card.md.j2", "scripts/train.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(code, "PACKAGE", package)
    monkeypatch.setattr(code, "SCRIPTS", scripts)
    states = [code._state.__wrapped__()]
    for number in range(20):  # a file system lists them in an order of its own
        (tmp_path / f"{number:02}.py").touch()
    names = [file.name for file in code.sources(tmp_path, "*.py")]
    assert names == [f"{number:02}.py" for number in range(20)]
    (package / "a" / ".#module.py").symlink_to("user@host.1:2")
    (scripts / "._train.py").write_bytes(b"\0")
    (package / ".ipynb_checkpoints").mkdir()
    (package / ".ipynb_checkpoints" / "module-checkpoint.py").touch()
    assert code._state.__wrapped__() == states[0]
    assert len(code.package_digest.__wrapped__()) == 64
    for name in ("package/a/module.py", "package/card.md.j2", "scripts/train.py"):
        (tmp_path / name).write_text("x = 2\n")  # of the same size
        states.append(code._state.__wrapped__())
    assert len(set(states)) == 4


def test_the_core_of_a_module_has_neither_looks_nor_the_list_of_a_registry(tmp_path):
    text = 'MODULES = ("medscale.base.log",)\nS = Strategy(name="a", looks={"": 1}, wrap=f)\n'
    file = write_file(tmp_path, text)
    before = code.module_digest(file), code.module_digest(file, core=True)
    for new, code_changes, core_changes in (
        (text.replace("1}", "22}"), True, False),
        (text.replace('log",', 'log", "medscale.base.files",'), True, False),
        (text.replace("wrap=f", "wrap=other"), True, True),
    ):
        write_file(tmp_path, new)
        after = code.module_digest(file), code.module_digest(file, core=True)
        assert (after[0] != before[0], after[1] != before[1]) == (code_changes, core_changes)


def test_a_training_depends_on_its_own_strategy_and_network_alone():
    folder = "medscale.engine.parallel.strategies"
    unused = frozenset({f"{folder}.fsdp", f"{folder}.mp", "medscale.engine.models.small"})
    every = code.module_digests(SCRIPTS / "train.py", core=True)
    dependencies = code.module_digests(SCRIPTS / "train.py", core=True, unused=unused)
    assert {f"{folder}.fsdp", f"{folder}.ddp"} <= set(every)
    assert f"{folder}.ddp" in dependencies
    assert f"{folder}.fsdp" not in dependencies
    assert "medscale.engine.parallel.fsdp" not in dependencies
    assert "medscale.engine.models.small" not in dependencies
    assert (
        f"{folder}.mp" in dependencies
    )  # the strategy ddp imports it, for replicas that are pipelines
