"""`medscale study`: its scale, and its end by Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from medscale.base.code import ROOT
from medscale.base.errors import EXIT_INTERRUPTED, MedscaleError
from medscale.base.files import read_json, write_json
from medscale.cli import options, progress, study
from medscale.workflow import summary
from medscale.workflow.graph import Graph
from medscale.workflow.progress.state import FILE, State

SLOW_TO_STOP = """
import signal, sys, time
def stop(*_):
    time.sleep(0.6)
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
time.sleep(60)
"""


# Sends Ctrl-C to this process when a module is looked for.
INTERRUPT = """
import os, runpy, signal, sys, time
imported, module = sys.argv[1:3]
del sys.argv[1:3]
class Finder:
    def find_spec(self, name, *_):
        if name == imported:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
sys.meta_path.insert(0, Finder())
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("imported", "module", "line"),
    [
        ("medscale.cli.study", "medscale.cli", "medscale: stopped"),
        ("medscale.config.layers", "medscale.cli", "medscale: stopped"),
        ("snakemake.api", "medscale.cli.snakemake", ""),
    ],
)
def test_ctrl_c_during_an_import_ends_without_a_traceback(
    imported: str, module: str, line: str
) -> None:
    command = [sys.executable, "-c", INTERRUPT, imported, module, "check"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert process.stderr.strip() == line


def test_ctrl_c_while_the_commands_are_built_ends_without_a_traceback() -> None:
    program = """
import runpy, sys, typer.main
def stop(*_):
    raise KeyboardInterrupt
typer.main.get_command = stop
sys.argv = ["medscale", "show"]
runpy.run_module("medscale.cli", run_name="__main__")
"""
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (EXIT_INTERRUPTED, "medscale: stopped\n")


@pytest.mark.parametrize(
    ("text", "scale", "expected"),
    [
        (None, None, "demo"),
        ("", None, "full"),
        ("scale: demo\n", None, "demo"),
        ("", "demo", "demo"),
    ],
)
def test_a_study_of_a_file_runs_at_full_scale(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    scale: str | None,
    expected: str,
) -> None:
    scales: list[Any] = []
    monkeypatch.setattr(study, "_findings", lambda graph: scales.append(graph.config.scale) or [])
    monkeypatch.setattr(summary, "lines", lambda graph, since: [])
    monkeypatch.setattr(
        study, "run_snakemake", lambda targets, changes, file: scales.append(changes["scale"]) or 1
    )
    file = None if text is None else tmp_path / "mine.yaml"
    if file is not None:
        file.write_text(f"workdir: {tmp_path}\n{text}")
    study.study(scale, None, file)
    assert scales == [expected, expected]


def test_times_are_those_of_all_trainings_of_the_active_studies(tmp_path: Path) -> None:
    sweep = {"runs": ["ddp_4gpu"], "lr": [1e-3, 2e-3], "lr_scaling": None}
    external = [{"title": "B", "source": {"kind": "folder", "path": "b"}}]
    studies = {"glaucoma": {"sweep": sweep, "external": external}}
    graph = Graph({"workdir": str(tmp_path), "only": ["glaucoma"], "studies": studies})
    for file, seconds in {
        "paper_pdf": 9,
        "glaucoma/index": 1,
        "glaucoma/ddp_4gpu/seed1.train": 30,
        "glaucoma_lr_0_002/ddp_4gpu/seed1.train": 20,  # a point of the sweep
        "glaucoma_published/serial_1gpu/seed1.train": 10,  # a variant
        "glaucoma_external1/serial_1cpu.external": 5,
        "skin/serial_1gpu/seed1.train": 100,  # not active
    }.items():
        (tmp_path / "benchmarks" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "benchmarks" / f"{file}.tsv").write_text(f"s\n{seconds}\n")
    assert sum(row["seconds"] for row in summary.facts(graph)["stages"]) == 75
    (tmp_path / "benchmarks" / "paper_pdf.tsv").write_text("")  # of a full disk
    with pytest.raises(MedscaleError, match=r"paper_pdf\.tsv holds no times of a job"):
        summary.facts(graph)


def test_results_have_the_order_of_the_configuration(tmp_path: Path) -> None:
    runs = ["serial_1cpu", "ddp_2cpu"]
    graph = Graph(
        {"workdir": str(tmp_path), "only": ["glaucoma"], "studies": {"glaucoma": {"runs": runs}}}
    )
    for run in ("serial_1gpu", "amp_1gpu", *runs):
        write_json(tmp_path / "results" / "glaucoma" / run / "summary.json", {})
    results = summary.facts(graph)["studies"][0]["results"]
    assert [result["run"] for result in results] == [*runs, "amp_1gpu", "serial_1gpu"]


def test_external_sets_are_listed_with_their_scores(tmp_path: Path) -> None:
    external = [{"title": "Basel", "runs": ["serial_1cpu"], "source": {"kind": "folder"}}]
    external[0]["source"]["path"] = str(tmp_path)
    changes = {"glaucoma": {"title": "Eyes", "external": external}}
    graph = Graph({"workdir": str(tmp_path), "only": ["glaucoma"], "studies": changes})
    score = {"mean": 0.5, "low": 0.25, "high": 0.75}
    content = {
        **dict.fromkeys(["study", "run", "counts", "seeds", "patients"]),
        "metrics": {"test": {"accuracy": score, "auroc": score}},
        "marks": {"scale": "full", "stand_in": False, "synthetic": False},
    }
    folder = tmp_path / "external" / "glaucoma_external1" / "serial_1cpu"
    write_json(folder / "summary.json", content)
    studies = summary.facts(graph)["studies"]
    assert [entry["title"] for entry in studies if entry["results"]] == [
        "Eyes: external images: Basel"
    ]
    console = Console(width=100, file=io.StringIO())
    console.print(*summary.lines(graph))
    assert "serial_1cpu  50.0 (25.0 to 75.0)  0.500 (0.250 to 0.750)" in console.file.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_snakemake_has_removed_its_lock(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW_TO_STOP], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def interrupt() -> None:  # Ctrl-C reaches the whole group of processes, `kill` one process
        if number == signal.SIGINT:
            process.send_signal(number)
        os.kill(os.getpid(), number)

    threading.Timer(0.2, interrupt).start()
    with pytest.raises(typer.Exit) as end:
        options._wait(process)
    assert end.value.exit_code == EXIT_INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
    assert process.returncode == 0  # ended by itself, and was not killed
    process.stdout.close()


def test_a_remaining_lock_is_named_with_the_command_that_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "_findings", lambda graph: [])
    monkeypatch.setattr(study, "run_snakemake", lambda *arguments: False)
    file = tmp_path / "mine.yaml"
    file.write_text(f"workdir: {tmp_path}\n")
    with pytest.raises(MedscaleError, match="the job and its log"):
        study.study(None, None, file)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    command = f"snakemake --unlock --configfile {file}"
    with pytest.raises(MedscaleError, match=rf"or one was killed\. If none runs, .*: {command}"):
        study.study(None, None, file)
    State(tmp_path, time.time()).write()
    record = read_json(tmp_path / FILE)
    for process, words in (
        (os.getpid(), f"another study runs in it, in process {os.getpid()}; wait for its end"),
        (2**22 + 1, rf"that ran in it was killed\. If no other runs, .*: {command}"),
    ):
        write_json(tmp_path / FILE, record | {"process": process})
        with pytest.raises(MedscaleError, match=words):
            study.study(None, None, file)
    progress.status(configfile=file)  # of the killed one
    text = capsys.readouterr().out
    assert "goes on, after the lock that it left is removed:\n" in text
    assert command in text.replace("\n", "")


def test_kill_ends_the_jobs_as_ctrl_c_does():
    code = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
        "subprocess.run([sys.executable, '-c', {job!r}])"
    )
    job = "import time; print('runs', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code.format(job=job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        options._interrupt(process)
        process.stdout.read()  # the end of the pipe: the job has ended as well
        assert process.wait(30) != 0


@pytest.mark.parametrize(
    ("target", "configfile", "scale"),
    [
        ("results/glaucoma/serial_1cpu", None, "full"),
        ("work/demo/results/glaucoma/serial_1cpu/", None, "demo"),
        ("paper", None, "full"),
        ("work/demo/results/glaucoma/serial_1cpu/", Path("mine.yaml"), "full"),
    ],
)
def test_why_takes_the_scale_from_a_path(target, configfile, scale, monkeypatch):
    monkeypatch.chdir(ROOT)
    scales: list[str] = []

    def changes_of(scale: str, *_: object) -> dict[str, Any]:
        scales.append(scale)
        raise MedscaleError("enough")

    monkeypatch.setattr(study, "changes_of", changes_of)
    with pytest.raises(MedscaleError, match="enough"):
        study.why(target, configfile=configfile)
    assert scales == [scale]
