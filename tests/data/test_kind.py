"""Dataset kinds: the folder is the registry, and one new module is enough for a new kind."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.data.kind import kind_file, kind_names, load_kind
from medscale.workflow.datasets import _layout_digest

TINY = '''
"""A dataset of two folders."""

from medscale.data.settings import Datasheet, Source
from medscale.data.class_folders import check_classes, rows_by_folder
from medscale.data.inventory import Inventory, make_inventory
from medscale.data.kind import ALL, DatasetKind, Edition
from medscale.data.listing import list_folder

EXPECTED = "Expected: benign|malignant/*.png"


def scan(source: Source, classes: list[str] | None) -> Inventory:
    """List the images."""
    listing = list_folder(source.path, EXPECTED)
    by_path, left_out = rows_by_folder(listing, "tiny")
    rows, names = list(by_path.values()), classes or ["benign", "malignant"]
    check_classes(listing, names, rows, EXPECTED)
    return make_inventory(rows, [*listing.excluded, *left_out], names, [])


KIND = DatasetKind(
    scan=scan,
    datasheet=Datasheet(name="Tiny", licence="CC-0"),
    paper="a tiny one.",
    editions=(Edition("Tiny", {(ALL, "benign"): 2, (ALL, "malignant"): 2}),),
)
'''


def test_every_kind_declares_itself() -> None:
    assert kind_names() == ["folder", "isic2017", "rsna", "skin", "smdg"]
    for name in kind_names():
        kind = load_kind(name)
        assert callable(kind.scan)
        assert name == "folder" or (kind.download and kind.editions and kind.demo and kind.paper)


def test_names_of_kinds_import_no_kind() -> None:
    code = (
        "import sys, medscale.data.kind as k; k.kind_names();"
        "sys.exit(any(m.startswith(('pandas', 'medscale.data.kinds')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("name", "hint"), [("sgmd", "did you mean 'smdg'"), ("xyz", "there are: folder, isic2017")]
)
def test_the_configuration_refuses_an_unknown_kind(name: str, hint: str) -> None:
    changes = {"studies": {"glaucoma": {"source": {"kind": name}}}}
    with pytest.raises(MedscaleError, match=rf"studies\.glaucoma\.source\.kind: .*{hint}"):
        load(ROOT / "config.yaml", changes)


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (('name="Tiny"', 'name="Small"'), False),
        (("a tiny one.", "a small one."), False),
        (('"""List the images."""', '"""List all images."""'), False),
        (('["benign", "malignant"]', '["malignant", "benign"]'), True),
        (('{(ALL, "benign"): 2', '{(ALL, "benign"): 3'), False),
    ],
)
def test_only_the_code_that_lists_images_reruns_the_index(
    tmp_path: Path, edit: tuple[str, str], changes: bool
) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(TINY)
    assert edit[0] in TINY
    second.write_text(TINY.replace(*edit))
    ast.parse(second.read_text())
    assert (_layout_digest(first) != _layout_digest(second)) is changes


def test_one_module_makes_a_kind(tmp_path: Path) -> None:
    """In a copy of the package: configuration, listing, check and command line know the kind."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    module = kind_file("tiny").relative_to(ROOT)
    (tmp_path / module).write_text(TINY)
    for label in ("benign", "malignant"):
        (tmp_path / "raw" / label).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "raw" / label / f"{number}.png").write_bytes(b"x" * 200)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    line = [sys.executable, "-m", "medscale.cli", "data", "check", "tiny", "raw"]
    process = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "compared with the complete Tiny" in process.stdout
