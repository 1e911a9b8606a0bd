"""The Actions run commands that exist, with few rights, by actions that are pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import medscale

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"- uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_pinned_and_has_few_rights(path):
    text = path.read_text(encoding="utf-8")
    uses = [line.strip() for line in text.splitlines() if "uses:" in line]
    assert all(PINNED.fullmatch(f"- {line.removeprefix('- ')}") for line in uses), uses
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        checkouts = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_commands_of_workflows_and_of_the_guide_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    guide = ROOT / "CONTRIBUTING.md"
    for path in [*WORKFLOWS, guide]:
        text = path.read_text(encoding="utf-8")
        pattern = r"run: make ([\w-]+)|^ +make ([\w-]+)|^make ([\w-]+)|`make ([\w-]+)`"
        make_targets = {name for names in re.findall(pattern, text, re.M) for name in names if name}
        assert make_targets, path
        assert make_targets <= targets, path
        for script in re.findall(r"\btools/[\w-]+\.sh", text):
            assert (ROOT / script).is_file(), script
    assert {path.stem for path in WORKFLOWS} == set(
        re.findall(r"^\| `(\w+)` \|", guide.read_text(), re.M)
    )


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project == medscale.__version__ == citation["version"]
    assert {"title", "abstract", "authors", "license", "keywords"} <= set(citation)
