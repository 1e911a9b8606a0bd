"""Ctrl-C reaches all processes of a terminal: those that a job starts wait for the job to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from waiting import until

# Each program starts processes and waits; the first line of its output says what they block.
DASK = """
import signal, time
from medscale.base.script import run_script

def main() -> None:
    from medscale.data.cluster import client
    from medscale.data.settings import Dask
    with client(Dask(workers=2), time.sleep) as connection:
        print(connection.run(signal.pthread_sigmask, signal.SIG_BLOCK, []), flush=True)
        time.sleep(60)

if __name__ == "__main__":
    run_script(main)
"""
POOL = """
import multiprocessing, signal, time
from concurrent.futures import ProcessPoolExecutor
from medscale.base.interrupts import blocked
from medscale.base.script import run_script

def main() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with blocked():
            mask = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, [])
        print(mask.result(), flush=True)
        time.sleep(60)

if __name__ == "__main__":
    run_script(main)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a program in a session of its own, which listens to Ctrl-C as in a terminal."""
    file = folder / "program.py"
    file.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("code", [DASK, POOL], ids=["Dask", "pool"])
def test_processes_of_a_job_take_no_ctrl_c(code: str, tmp_path: Path) -> None:
    process = start(code, tmp_path)
    assert process.stdout is not None
    masks = process.stdout.readline()
    assert masks.count("SIGINT") == (2 if code == DASK else 1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 130


def test_ctrl_c_while_the_workers_start_prints_no_traceback(tmp_path: Path) -> None:
    process = start(DASK, tmp_path)
    workers = psutil.Process(process.pid)
    until(lambda: len(workers.children(recursive=True)) > 1, "the first worker starts")
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert "Traceback" not in output
    assert process.returncode == 130
    until(lambda: not workers.is_running(), "the job ends")
