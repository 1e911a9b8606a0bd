"""A training whose disk is full ends with one sentence, and goes on when there is space again."""

from __future__ import annotations

import subprocess

import pytest

from run_comparison import equal_runs

pytestmark = pytest.mark.attack
SIZES = (0, 300, 2000, 8000, 32000)  # bytes that a file can have


def test_full_disk_at_any_write(training, record_property):
    reference = training.fork("serial_1cpu", "undisturbed")
    outcomes = [full(training, size) for size in SIZES]
    for size in SIZES:
        training.fork("serial_1cpu", f"full{size}")
    equal = [equal_runs(reference, training.folder / f"full{size}") for size in SIZES]
    record_property("tried", len(SIZES))
    record_property("survived", sum(map(all, zip(outcomes, equal, strict=True))))
    assert outcomes == equal == [True] * len(SIZES)


def full(training, size: int) -> bool:
    """Train where no file can become larger than ``size``.

    Returns:
        Whether the run ended, or said in one sentence that a file cannot be written.
    """
    name = f"full{size}"
    command = training.command("serial_1cpu", name)
    limits = f"{size}:{size}"
    process = subprocess.run(
        ["prlimit", f"--fsize={limits}", *command], capture_output=True, text=True, timeout=300
    )
    errors = [line for line in process.stderr.splitlines() if line.startswith("medscale: error")]
    one_sentence = (
        process.returncode == 2 and len(errors) == 1 and "Traceback" not in process.stderr
    )
    partial = [file for file in training.folder.glob(f"{name}/.*") if file.is_file()]
    if partial or not (one_sentence or process.returncode == 0):
        print(size, process.returncode, partial, process.stderr[-1000:])
        return False
    return True
