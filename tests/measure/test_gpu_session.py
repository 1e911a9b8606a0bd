"""`make gpu-session` without a GPU: the order of its steps, their time, and what it prints."""

from __future__ import annotations

import re

import psutil
import typer

from bench import gpu, gpu_session
from medscale.base.files import read_json
from training_runs import ROOT
from waiting import until


def has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_session_writes_each_result_and_ends_in_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_session, "LEAST_S", 0.5)
    rank = f"""
import subprocess, sys
rank = subprocess.Popen(["sleep", "60"], start_new_session=True)
open({str(tmp_path / "pid")!r}, "w").write(str(rank.pid))
print("begun")
rank.wait()
"""
    steps = (
        gpu_session.Step("good", 30, ("-c", "print('fine')")),
        gpu_session.Step("slow", 3, ("-c", rank)),
        gpu_session.Step("broken", 30, ("-c", "raise SystemExit(3)")),
    )
    gpu_session.session(steps, 30, tmp_path / "out")
    rows = read_json(tmp_path / "out" / "session.json")
    assert [(row["step"], row["status"]) for row in rows] == [
        ("good", "done"),
        ("slow", "not finished within 3 s"),
        ("broken", "status 3"),
    ]
    assert rows[0]["output"] == ["fine"]
    output = (tmp_path / "out" / "output.txt").read_text()
    assert output.splitlines() == ["===== good", "fine", "===== slow", "begun", "===== broken"]
    printed = capsys.readouterr().out
    assert re.search(r"slow: not finished within 3 s after [\d.]+ s\n    begun\n", printed)
    rank_id = int((tmp_path / "pid").read_text())
    until(lambda: has_ended(rank_id), "the end of a rank")
    assert "| slow | not finished within 3 s |" in (tmp_path / "out" / "goals.md").read_text()
    gpu_session.session(steps[:1], 0.1, tmp_path / "late")
    assert read_json(tmp_path / "late" / "session.json") == [
        {"step": "good", "status": "no time left"}
    ]


def test_a_session_without_a_card_ends_at_once(tmp_path):
    steps = (
        gpu_session.Step("card", 30, ("-c", "raise SystemExit('no GPU')")),
        gpu_session.Step("smoke", 30, ("-c", "print('fine')")),
    )
    gpu_session.session(steps, 30, tmp_path)
    assert [row["step"] for row in read_json(tmp_path / "session.json")] == ["card"]


def test_faults_of_a_step_are_printed_in_few_lines():
    text = """tests/gpu/test_gpu_steps.py::test_a PASSED [ 50%]
    assert left == right
E   AssertionError: assert 1 == 2
{"network": "resnet50", "way": "graph", "images_per_second": 4800.0}
{"network": "resnet50", "way": "engine", "note": "not finished within 420 s"}
  File "/x/src/medscale/engine/train/capture.py", line 80 in capture
torch.OutOfMemoryError: CUDA out of memory
[gw0] [ 10%] FAILED tests/gpu/test_gpu_steps.py::test_b
tests/gpu/test_gpu_steps.py::test_c
"""
    assert [line.split()[0] for line in gpu_session.faults(text, "status 1")] == [
        *("E", '{"network":', "File", "torch.OutOfMemoryError:", "[gw0]"),
        "tests/gpu/test_gpu_steps.py::test_c",  # was not finished
    ]
    assert gpu_session.faults("a\nb\n", "status 1") == ["a", "b"]
    assert gpu_session.faults("a\nb\n", "done") == []
    many = "".join(f"FAILED {number} {'x' * 500}\n" for number in range(50))
    assert sum(map(len, gpu_session.faults(many, "status 1"))) <= 1280


def test_steps_of_a_session_name_tests_and_benchmarks_that_exist():
    assert len(set(gpu_session.NAMES)) == len(gpu_session.NAMES)
    app = typer.Typer()
    app.command()(gpu.main)
    command = typer.main.get_command(app)
    for step in gpu_session.STEPS:
        for part in step.arguments:
            assert not part.endswith(".py") or (ROOT / part).is_file(), part
        if step.arguments[:2] == ("-m", "bench.gpu"):
            options = command.make_context("bench", list(step.arguments[2:])).params
            assert set(options["network"]) <= set(gpu.NETWORKS)
            assert set(options["way"]) <= set(gpu.TITLES)
            assert not options["gaps"]
