"""Every command, code example, setting and link of the documents is true.

``medscale`` commands with local inputs are carried out, targets of ``snakemake`` are planned, and
commands that take minutes, a network or another machine are checked by their names. Commands of
docs/recipes are carried out by test_recipes.py.
"""

from __future__ import annotations

import html
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from pygments.styles import get_style_by_name
from pygments.token import Whitespace
from typer.main import get_command
from typer.testing import CliRunner

from docs_commands import (
    PAGES,
    PROGRAMS,
    ROOT,
    SITE_PAGES,
    anchors,
    commands,
    fences,
    links,
    make_workspace,
    words,
)
from medscale.base.errors import MedscaleError
from medscale.cli.main import main
from medscale.config.configuration import load
from medscale.workflow.progress.state import Job, State
from snakemake_command import snakemake

COMMANDS = commands()
COMMAND_LINE = get_command(main)
# Why a command of medscale is not carried out; its options are checked all the same.
NOT_CARRIED_OUT = {
    "study": "takes minutes: `make study` in the demo's job on GitHub",
    "profile": "takes a minute: tests/measure/test_profiling.py",
    "serve": "runs until it is stopped: tests/serve/test_service.py",
    "crate": "needs a complete study: tests/workflow/test_crate.py",
    "crate restore": "needs a crate: tests/workflow/test_restore.py",
    "crate compare": "needs a crate: tests/workflow/test_restore.py",
    "status": "needs a study that runs: tests/workflow/test_progress.py",
    "logs": "needs a study that runs: tests/workflow/test_progress.py",
    "data croissant": "describes the data of this checkout: tests/exchange/test_croissant.py",
    "track": "needs the runs beside the results: tests/exchange/test_mlflow.py",
    "verify": "needs a complete study: tests/report/test_claims.py",
}
# Errors that are the right answer here: the real data are missing.
ANSWERS = {
    "check": "the planned runs cannot be carried out here",
    "data check": "is not complete for dataset kind",
}
# Commands that are complete without arguments. Others without arguments are mentioned by name.
COMPLETE = {"medscale check", "medscale size"}
# Other programs, which the tests do not start.
OTHER_PROGRAMS = {
    "source": "the shell's",
    "python": "tests/serve/test_onnx_example.py runs predict_onnx.py",
    **dict.fromkeys(("pip", "pipx"), "asks a package index"),
    **dict.fromkeys(("git", "cd", "pre-commit"), "the user's own"),
    **dict.fromkeys(("squeue", "sbatch", "sinfo", "sacctmgr"), "needs a cluster"),
    **dict.fromkeys(("apptainer", "docker", "module"), "needs an image, or a cluster's modules"),
    **dict.fromkeys(
        ("openssl", "chmod", "cp", "export", "dask", "find", "$EDITOR"), "the user's own"
    ),
    "curl": "needs a service: tests/serve/test_service.py sends such requests",
    "sed": "applies a recipe, as test_recipes.py does",
}
# Options with which Snakemake plans nothing, or needs what is not here.
NOT_PLANNED = {
    "--report": "a report needs results",
    "--unlock": "there is no lock",
    "--snakefile": "tests/workflow/test_deployment.py plans it",
}
SEVERAL_VALUES = {"--config", "--resources"}  # options of Snakemake
LANGUAGES = {"sh", "text", "python", "yaml", "diff", "nginx", "bibtex"}


def of(program: str) -> list[str]:
    """The commands of a program."""
    return [command for command in COMMANDS if words(command)[0] == program]


def is_pattern(command: str) -> bool:
    """Whether a command stands for several: it has a placeholder instead of a value."""
    return bool(re.search(r"<\w+>|…|\.\.\.|\b(COMMAND|TARGET|FOLDER)\b", command))


def test_every_command_is_of_a_known_program() -> None:
    programs = {words(command)[0] for command in COMMANDS}
    assert programs - {"make", "medscale", "snakemake"} == set(OTHER_PROGRAMS)


@pytest.mark.parametrize("command", of("make"))
def test_make_has_the_target(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for part in words(command)[1:]:
        if "=" in part:
            assert re.search(rf"^{part.split('=')[0]} \?=", makefile, re.M), part
        else:
            pattern = rf"^({re.escape(part)}|{re.sub('-.*', '-%', part)}):"
            assert re.search(pattern, makefile, re.M), part
            if bench := re.fullmatch(r"bench-(\w+)", part):
                assert (ROOT / "bench" / f"{bench[1]}.py").is_file()


def parse_command(command: str) -> str:
    """Parse a command of medscale as the command line does; return its name."""
    group, arguments, name = COMMAND_LINE, words(command)[1:], []
    while hasattr(group, "commands"):
        if not arguments or arguments[0] == "--help" or is_pattern(arguments[0]):
            return " ".join(name)
        if not name and any(arguments[0] in option.opts for option in group.params):
            return ""
        if group.invoke_without_command and arguments[0].startswith("-"):
            break
        assert arguments[0] in group.commands, command
        name.append(arguments[0])
        group, arguments = group.commands[arguments[0]], arguments[1:]
    if arguments and arguments != ["--help"] and not is_pattern(command):
        group.make_context(" ".join(name), list(arguments))  # refuses unknown options
    return " ".join(name)


@pytest.mark.parametrize("command", of("medscale"))
def test_medscale_has_the_command_and_its_options(command: str) -> None:
    parse_command(command)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    make_workspace(folder)
    return folder


def carried_out() -> list[str]:
    """The commands of medscale with their arguments, without those that are not carried out."""
    return [
        command
        for command in of("medscale")
        if not is_pattern(command)
        and parse_command(command) not in NOT_CARRIED_OUT
        and (len(words(command)) > 1 + len(parse_command(command).split()) or command in COMPLETE)
    ]


@pytest.mark.parametrize("command", carried_out())
def test_a_command_with_local_inputs_works(
    command: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    if command.endswith("--install-completion"):  # it writes into the user's home
        monkeypatch.setenv("HOME", str(workspace / "home"))
        monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
        (workspace / "home").mkdir()
    result = CliRunner().invoke(main, words(command)[1:])
    if isinstance(result.exception, MedscaleError):
        assert ANSWERS.get(parse_command(command), "no error") in str(result.exception)
    else:
        assert result.exit_code == 0, result.output
        assert result.output.strip()


@pytest.mark.parametrize(
    "command", ["medscale predikt", "medscale show results --seed 1", "medscale size --colour red"]
)
def test_a_command_that_does_not_exist_is_refused(command: str) -> None:
    with pytest.raises(Exception, match=r"predikt|No such option"):
        parse_command(command)


def planned_targets() -> dict[tuple[str, ...], list[str]]:
    """The targets of Snakemake's commands, by the options that they are planned with."""
    by_options = defaultdict(list)
    for command in of("snakemake"):
        arguments = words(command)[1:]
        if is_pattern(command) or set(arguments) & set(NOT_PLANNED):
            continue
        options, targets = [], []
        while arguments:
            part = arguments.pop(0)
            if not part.startswith("-"):
                targets.append(part)
            elif part != "-n":
                options += [part, arguments.pop(0)]
                while part in SEVERAL_VALUES and arguments and arguments[0][0] != "-":
                    options.append(arguments.pop(0))
        by_options[tuple(part for part in options if part != "-n")] += targets
    return by_options


@pytest.mark.parametrize("options", planned_targets(), ids=" ".join)
def test_targets_are_planned(options: tuple[str, ...], workspace: Path) -> None:
    configuration_file = str(workspace / "mine.yaml")
    arguments = [configuration_file if part == "mine.yaml" else part for part in options]
    if "slurm" in arguments and "--sdm" not in arguments:
        arguments += ["--sdm", "env-modules"]  # otherwise Snakemake looks for Apptainer
    process = snakemake(
        "-n", *sorted(set(planned_targets()[options])), *arguments, "--quiet", "rules"
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_commands_that_are_not_planned_have_options_of_snakemake() -> None:
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    for command in of("snakemake"):
        for part in words(command):
            assert not part.startswith("-") or part in parser._option_string_actions, command
        # An option of several values takes a target that stands after them as a value.
        files = parser.parse_args(words(command)[1:]).configfile or []
        assert all(file.suffix == ".yaml" for file in files), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_blocks_of_a_page(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
    for fence in fences(page):
        assert fence.language in LANGUAGES or fence.language.startswith("{"), fence
        if fence.language != "sh":  # otherwise no test would see the commands
            starts = tuple(f"{program} " for program in PROGRAMS)
            assert not [line for line in fence.text.splitlines() if line.startswith(starts)], fence
        if fence.language == "yaml":
            load(ROOT / "config.yaml", yaml.safe_load(fence.text))


def test_the_site_is_built_without_warnings_and_without_the_network(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    process = subprocess.run(
        [*build, str(ROOT / "docs"), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    assert {page.stem for page in SITE_PAGES} <= {page.stem for page in pages}
    for page, text in pages.items():
        assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)="https?:', text), page
    reference = (tmp_path / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in COMMAND_LINE.commands:
        assert f"medscale {command}" in reference
    assert " -- " not in (tmp_path / "reference" / "python.html").read_text(encoding="utf-8")
    words = html.unescape(re.sub(r"<[^>]+>", "", reference))
    for usage in (
        "logs [OPTIONS] [TARGET]",
        "verify [OPTIONS] [CLAIM...]",
        "leaks [OPTIONS] PATH...",
    ):
        assert f"medscale {usage}\n" in words
    assert "`" not in words


@pytest.mark.parametrize("theme", ["pygments_style", "pygments_dark_style"])
def test_code_on_the_site_can_be_read(theme: str) -> None:
    def light(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    style = get_style_by_name(runpy.run_path(str(ROOT / "docs" / "conf.py"))[theme])
    page = style.background_color.removeprefix("#")
    for token, look in style:
        if look["color"] and token is not Whitespace:
            low, high = sorted((light(look["color"]), light(look["bgcolor"] or page)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, token  # WCAG 2.1, 1.4.3


def python_examples() -> list[str]:
    return [fence.text for page in PAGES for fence in fences(page) if fence.language == "python"]


@pytest.mark.parametrize("number", range(len(python_examples())))
def test_a_python_example_runs(
    number: int, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    names: dict[str, object] = {}
    exec(python_examples()[number], names)
    assert {"answer", "record"} & names.keys()
    if "answer" in names:
        assert names["answer"].label  # type: ignore[attr-defined]


def test_the_table_of_the_demo_is_that_of_its_file() -> None:
    from tools.readme import TABLE, filled, read_table

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert filled(readme, read_table(TABLE)) == readme


def test_the_documents_name_the_same_minutes_of_the_demo(tmp_path: Path) -> None:
    from tools import readme

    texts = [(ROOT / name).read_text(encoding="utf-8") for name in readme.TIMED]
    assert len({number for text in texts for number in readme.MINUTES.findall(text)}) == 1
    assert all(readme.MINUTES.search(text) for text in texts)
    state = State(tmp_path, now=1000.0)
    state.expect([Job(1, "train"), Job(2, "paper_pdf")])
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "paper.tsv").write_text("s\n8.5\n")
    state.write()
    assert readme.minutes(tmp_path) is None  # it runs
    state.finish(1)
    state.finish(2)
    state.ended = 1000.0 + 842
    state.write()
    assert readme.minutes(tmp_path) == 15
    for name in ("a", "b"):  # stages that an earlier call finished
        (tmp_path / "benchmarks" / f"{name}.tsv").write_text("s\n2\n")
    assert readme.minutes(tmp_path) is None


def test_the_first_screen_and_the_length_of_the_readme() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert "docs/demo.png" in "\n".join(lines[:20])
    assert (ROOT / "docs" / "page.png").stat().st_size < 300_000
