"""Each recipe of docs/recipes is carried out in a copy of the checkout and touches nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import warm_python
from byte_code import copy_byte_code
from medscale.base.code import ROOT
from medscale.base.files import sha256
from recipe_uses import PREPARED, training_digest

FOLDER = ROOT / "docs" / "recipes"
ENGINE = "src/medscale/engine"
FORMATS = "src/medscale/serve/formats"
# The files that the patch of each recipe may touch; of a registry it may add one line.
ALLOWED = {
    "figure": ["src/medscale/report/quality/*", "paper/study/*"],
    "dataset-kind": ["src/medscale/data/kinds/*", "biopsy.yaml"],
    "strategy": [f"{ENGINE}/parallel/strategies/lockstep.py", f"{ENGINE}/parallel/*/registry.py"],
    "export-format": [f"{FORMATS}/int8_dynamic.py", f"{FORMATS}/registry.py"],
    "network": [f"{ENGINE}/models/plain_cnn.py", f"{ENGINE}/models/own.py"],
}
MODULES = {"medscale": "medscale.cli", "snakemake": "snakemake"}  # of the recipes' commands


def block(recipe: str, language: str) -> str:
    """The one block of a language in the page of a recipe."""
    text = (FOLDER / f"{recipe}.md").read_text(encoding="utf-8")
    (code_block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)
    return code_block


def copy_checkout(folder: Path) -> dict[str, str]:
    """Copy the tracked files; their digests by path."""
    process = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in process.stdout.decode().split("\0"):
        if name and os.path.lexists(ROOT / name):  # not where it was removed from the working tree
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    copy_byte_code(folder)
    return digests(folder)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run(folder: Path, *command: str) -> str:
    """Run Python in the copy, with the copy's code."""
    search = os.pathsep.join([str(folder / "src"), str(folder / "tests")])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = warm_python.run(
        command,
        warm_python.PLANNING if "snakemake" in command else warm_python.TRAINING,
        cwd=folder,
        environment={**os.environ, "PYTHONPATH": search, "PATH": path},
        seconds=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_index_names_each_recipe() -> None:
    pages = set(
        re.findall(r"\]\(([a-z-]+)\.md\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    )
    assert pages == set(ALLOWED) == {page.stem for page in FOLDER.glob("*.md")} - {"README"}


@pytest.mark.parametrize("recipe", ALLOWED)
def test_a_recipe_works_and_touches_no_other_file(recipe: str, tmp_path: Path) -> None:
    copy, function = tmp_path / "copy", recipe.replace("-", "_")
    before = copy_checkout(copy)
    patch = block(recipe, "diff").encode()
    subprocess.run(["git", "apply", "-"], cwd=copy, input=patch, check=True)
    digests_after = digests(copy)
    changed_files = [name for name in digests_after if digests_after[name] != before.get(name)]
    assert changed_files
    for name in changed_files:
        assert any(fnmatch(name, pattern) for pattern in ALLOWED[recipe]), name
        if name.endswith(("registry.py", "own.py")):
            old, new = ((root / name).read_text().splitlines() for root in (ROOT, copy))
            assert len(new) == len(old) + 1
            assert set(old) <= set(new)
    uses = str(copy / "tests" / "recipe_uses.py")
    if function in PREPARED:
        run(copy, uses, "prepare", function)
    for line in block(recipe, "sh").splitlines():
        # Snakemake plans the jobs, which shows that the rules know what was added; a study is not
        # carried out, as it takes minutes.
        program, *arguments = line.split() + ["-n"] * line.startswith("snakemake ")
        run(copy, "-m", MODULES[program], *arguments)
    digest = run(copy, uses, function, str(tmp_path / "uses")).split()[-1]
    assert digest == training_digest(), "the recipe reruns trainings"
    after = digests(copy)
    assert {name: after.get(name) for name in digests_after} == digests_after
