"""Texts and folder names of a configuration are never run or read as Snakemake's own syntax."""

from __future__ import annotations

import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.resources.containers import check_home

ROOT = Path(__file__).parents[2]
CHECKOUT = (
    *("Snakefile", "config.yaml", "reported.yaml", "claims.yaml", "requirements.lock"),
    *("checklists", "containers", "demo", "paper", "profiles", "report", "rules", "scripts", "src"),
)
HOSTILE = "A {word} of $(touch attacked) `touch attacked` \"'; touch attacked #"


def commands() -> list[tuple[str, str]]:
    """Return the shell text of each rule, and the file that it is from."""
    texts = []
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for block in re.findall(r"shell:((?:\s+\".*\"\n)+)", file.read_text(encoding="utf-8")):
            texts.append((file.name, "".join(re.findall(r"\"(.*)\"", block))))
    return texts


# Several words, which are quoted where they are made: the beginning of a command, and options.
QUOTED = (None, "resources.start", "resources.siblings")


def test_every_value_in_a_command_is_quoted():
    texts = commands()
    rules = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "rules").glob("*.smk"))
    assert len(texts) == len(re.findall(r"^\s+shell:", rules, re.M)) > 10
    assert not re.search(r"^\s+run:", rules, re.M)
    for file, text in texts:
        for _, name, form, _ in string.Formatter().parse(text):
            assert form == "q" or name in QUOTED, f"{file}: {{{name}}}"


def test_a_kind_is_one_of_those_that_exist():
    changes = {"studies": {"glaucoma": {"source": {"kind": "$(touch attacked)"}}}}
    with pytest.raises(MedscaleError, match="there is no dataset kind"):
        load(ROOT / "config.yaml", changes)


def test_folders_and_titles_with_shell_and_wildcard_syntax_are_only_names(tmp_path):
    checkout = tmp_path / "the \"check\" 'out' {c} $(touch attacked)"
    workdir = tmp_path / "a 'work' dir {d} $(touch attacked)"
    checkout.mkdir()
    for name in CHECKOUT:
        if (ROOT / name).is_dir():
            images = shutil.ignore_patterns("*.sif")
            shutil.copytree(ROOT / name, checkout / name, ignore=images, symlinks=True)
        else:
            shutil.copy(ROOT / name, checkout)
    study = {"title": HOSTILE, "datasheet": {"known_problems": [HOSTILE]}}
    changes = tmp_path / "changes.yaml"
    settings = {"scale": "demo", "workdir": str(workdir), "studies": {"glaucoma": study}}
    changes.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "snakemake", "--configfile", str(changes), "--cores", "1"]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(checkout / "src")

    def run(*arguments: str) -> None:
        process = subprocess.run(
            [*command, *arguments],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert process.returncode == 0, process.stdout + process.stderr

    run("--dry-run", "--forceall")
    run("config.resolved.json", "runs/glaucoma/serial_1cpu/seed1/spec.json")
    assert (
        HOSTILE
        in yaml.safe_load((workdir / "config.resolved.json").read_text())["studies"]["glaucoma"][
            "datasheet"
        ]["known_problems"]
    )
    assert not list(tmp_path.rglob("attacked"))


@pytest.mark.parametrize("name", ["a b", "it's", 'a "b"', "{word}", "$(touch x)"])
def test_a_workdir_that_snakemake_can_pass_to_the_image_is_accepted(name):
    check_home(Path("/somewhere") / name)


@pytest.mark.parametrize("name", ["a 'b' \"c\"", "it's $(touch x)", "back\\slash"])
def test_other_workdirs_are_refused_for_jobs_in_the_image(name):
    with pytest.raises(MedscaleError, match="cannot be the workdir of jobs in a container"):
        check_home(Path("/somewhere") / name)
