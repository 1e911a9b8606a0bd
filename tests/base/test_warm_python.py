"""Programs that are forked from a process with imports behave as those that Python starts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import warm_python

MODULES = ("statistics",)
SHOW = """
import atexit, os, sys
print(sys.argv, os.getcwd(), os.environ["WORD"], sys.stdin.read(), __name__, sys.path[1])
print("statistics" in sys.modules, file=sys.stderr)
atexit.register(print, "last")
"""


def test_a_program_has_its_own_arguments_folder_environment_path_and_outputs(tmp_path: Path):
    environment = {"WORD": "word", "PYTHONPATH": str(tmp_path / "own")}
    process = warm_python.run(["-c", SHOW, "it"], MODULES, cwd=tmp_path, environment=environment)
    first = f"['-c', 'it'] {tmp_path} word  __main__ {tmp_path / 'own'}"
    assert process.stdout == f"{first}\nlast\n"
    assert (process.stderr, process.returncode) == ("True\n", 0)


def test_a_program_imports_the_code_of_its_own_search_path(tmp_path: Path):
    for number in (1, 2):
        package = tmp_path / f"{number}" / "medscale"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(f"raise SystemExit({number})")
        environment = {"PYTHONPATH": str(package.parent)}
        options = {"cwd": tmp_path, "environment": environment}
        assert warm_python.run(["-m", "medscale"], MODULES, **options).returncode == number


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit",
        "raise SystemExit(3)",
        "raise SystemExit('a sentence')",
        "1 / 0",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import threading; threading.Timer(0.2, print, ['a thread']).start()",
    ],
)
def test_a_program_ends_as_one_that_python_starts(tmp_path: Path, text: str):
    process = warm_python.run(["-c", text], MODULES, cwd=tmp_path)
    usual = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (usual.returncode, usual.stdout)
    assert process.stderr.splitlines()[-1:] == usual.stderr.splitlines()[-1:]


def test_a_program_that_takes_too_long_is_killed(tmp_path: Path):
    with pytest.raises(subprocess.TimeoutExpired):
        warm_python.run(["-c", "import time; time.sleep(60)"], MODULES, cwd=tmp_path, seconds=0.2)
    sleeping = warm_python.start(["-c", "import time; time.sleep(60)"], MODULES, cwd=tmp_path)
    assert sleeping.poll() is None
    sleeping.send_signal(signal.SIGUSR1)
    assert sleeping.wait(20) == -signal.SIGUSR1
    sleeping.kill()  # does nothing
