"""`medscale study`: its scale, and its end by Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from medscale.base.errors import MedscaleError
from medscale.cli import options, study
from medscale.workflow import summary

SLOW_TO_STOP = """
import signal, sys, time
def stop(*_):
    time.sleep(0.6)
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
time.sleep(60)
"""


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


def test_ctrl_c_waits_until_snakemake_has_removed_its_lock() -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW_TO_STOP], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def interrupt() -> None:  # as the terminal does it: the whole group of processes
        process.send_signal(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.2, interrupt).start()
    with pytest.raises(MedscaleError, match="the same command goes on"):
        options._wait(process)
    assert process.returncode == 0  # ended by itself, and was not killed
    process.stdout.close()


def test_a_remaining_lock_is_named_with_the_command_that_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "_findings", lambda graph: [])
    monkeypatch.setattr(study, "run_snakemake", lambda *arguments: False)
    file = tmp_path / "mine.yaml"
    file.write_text(f"workdir: {tmp_path}\n")
    with pytest.raises(MedscaleError, match="the job and its log"):
        study.study(None, None, file)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    with pytest.raises(MedscaleError, match=rf"snakemake --unlock --configfile {file}"):
        study.study(None, None, file)
