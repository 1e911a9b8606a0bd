"""Peak memory of a process."""

from __future__ import annotations

import subprocess
import sys

from medscale.base import memory

CHILD = "from medscale.base.memory import peak_memory_mb; print(peak_memory_mb())"
BLOCK_MB = 300


def test_an_allocation_is_counted_in_its_process_and_not_in_those_that_it_starts():
    block = b"x" * (BLOCK_MB * 2**20)
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, check=True)
    assert float(child.stdout) < BLOCK_MB / 2
    assert len(block) == BLOCK_MB * 2**20
    del block
    assert memory.peak_memory_mb() > BLOCK_MB


def test_a_kernel_that_does_not_tell_the_peak_is_asked_for_the_usage(tmp_path, monkeypatch):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmRSS:\t1 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    assert memory.peak_memory_mb() > 1
