"""Ctrl-C ends a script silently, whether it imports its modules or runs."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from functools import partial

import pytest

from medscale.base.code import SCRIPTS

IMPORTING = """
import medscale.base.script
print("imports", flush=True)
import time
time.sleep(60)
"""
RUNNING = """
import time
from medscale.base.script import run_script

def main(seconds: int = 60) -> None:
    print("runs", flush=True)
    time.sleep(seconds)

run_script(main)
"""


@pytest.mark.parametrize(
    ("code", "status"), [(IMPORTING, -signal.SIGINT), (RUNNING, 130)], ids=["imports", "runs"]
)
def test_ctrl_c_ends_a_script_without_a_message(code, status):
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal, also where these tests run in the background of a shell.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == status


def test_a_shell_s_background_stays_deaf_to_ctrl_c():
    code = "import medscale.base.script, signal; print(signal.getsignal(signal.SIGINT).name)"
    command = f"trap '' INT; exec '{sys.executable}' -c '{code}'"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "SIG_IGN"


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda script: script.name)
def test_a_script_listens_to_ctrl_c_before_it_imports_anything_else(script):
    nodes = ast.parse(script.read_text(encoding="utf-8")).body
    first = next(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    assert isinstance(first, ast.ImportFrom)
    assert first.module == "medscale.base.script"
