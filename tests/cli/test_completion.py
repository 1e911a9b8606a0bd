"""Words that the shell completes, and the version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import medscale
from medscale.cli.completion import results_like, runs_like, studies_like
from medscale.cli.main import main


def test_studies_are_completed_in_a_list_too() -> None:
    assert studies_like("glauc") == ["glaucoma", "glaucoma_published"]
    assert "skin,melanoma" in studies_like("skin,mel")
    assert studies_like("nothing") == []


def test_runs_are_those_of_the_study_before() -> None:
    of_skin = runs_like(SimpleNamespace(params={"study": "skin"}), "ddp")
    completions = runs_like(SimpleNamespace(params={}), "ddp")
    assert of_skin
    assert set(of_skin) < set(completions)
    assert all(run.startswith("ddp") for run in completions)


def test_results_are_the_folders_with_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("results/skin/ddp_2gpu", "work/demo/results/skin/serial_1cpu"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "summary.json").write_text("{}")
    (tmp_path / "results" / "skin" / "unfinished").mkdir()
    assert results_like("res") == ["results/skin/ddp_2gpu"]
    assert results_like("work/demo") == ["work/demo/results/skin/serial_1cpu"]
    assert results_like("results/skin/unf") == ["results/skin/unfinished/"]


def test_the_shell_is_answered_without_pytorch() -> None:
    code = "import sys; from medscale.cli.main import main\n"
    code += (
        "try: main(prog_name='medscale')\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "_MEDSCALE_COMPLETE": "complete_bash",
            "COMP_WORDS": "medscale config --study glauc",
            "COMP_CWORD": "3",
        },
    )
    assert process.stdout.split() == ["glaucoma", "glaucoma_published"], process.stderr
    assert process.stderr.split()[-1] == "False"


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"medscale {medscale.__version__}\n"


@pytest.mark.parametrize("name", ["train", "list", "version", "croissant"])
def test_a_command_of_other_programs_is_answered_with_what_to_type(name: str) -> None:
    invocation = CliRunner().invoke(main, [name])
    assert invocation.exit_code == 2
    assert f"there is no command '{name}'; type" in invocation.output


@pytest.mark.parametrize(
    "command",
    [
        "config --study skin",
        "size --only melanoma",
        "summary --scale demo --only skin",
        "study -n --only skin",
        "check --scale demo --only skin",
        "leaks config.yaml",
    ],
)
def test_stdout_holds_one_json_document(command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), "--json"])
    assert isinstance(json.loads(result.stdout), dict)


def test_the_summary_of_a_study_is_about_that_study_and_results_come_first(tmp_path: Path) -> None:
    (tmp_path / "changes.yaml").write_text(f"workdir: {tmp_path}\n")
    for study in ("skin", "skin_random", "melanoma"):
        times = tmp_path / "benchmarks" / study / "index.tsv"
        times.parent.mkdir(parents=True)
        times.write_text("s\n2.5\n")
        figure = tmp_path / "figures" / study / "accuracy.pdf"
        figure.parent.mkdir(parents=True)
        figure.touch()
    arguments = ["summary", "--only", "skin", "--configfile", str(tmp_path / "changes.yaml")]
    text = CliRunner().invoke(main, arguments).stdout
    assert "melanoma" not in text
    parts = ("photographs\n no results yet", "figures: 1 in ", ": random split", "Time by stage")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    facts = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    active = ["skin", "skin_random"]  # a study and its variant
    assert [(row["study"], row["seconds"]) for row in facts["stages"]] == [(s, 2.5) for s in active]
    figures = [str(tmp_path / "figures" / name / "accuracy.pdf") for name in active]
    assert [study["figures"] for study in facts["studies"]] == [[figure] for figure in figures]


def test_a_path_of_the_home_folder_may_follow_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "raw").write_text("a file")
    invocation = CliRunner().invoke(main, ["data", "fetch", "skin", "--to=~/raw"])
    assert str(invocation.exception) == f"{tmp_path / 'raw'} is a file; name the raw folder"
