"""Trainings that are killed at any time, from their first line on, end as if never killed."""

from __future__ import annotations

import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from run_comparison import equal_runs
from training_runs import WHOLE

pytestmark = pytest.mark.attack
TRIALS = 20
MOST_KILLS = 3  # in one trial
ORPHANS_S = 30  # after which no process of a killed run is alive


@pytest.mark.parametrize("run", ["serial_1cpu", "ddp_2cpu", "fsdp_2cpu", "mp_2cpu"])
def test_killed_at_random_times(training, run, record_property):
    start = time.monotonic()
    reference = training(run, "undisturbed", **WHOLE)
    seconds = time.monotonic() - start
    outcomes = [trial(training, run, number, seconds, reference) for number in range(TRIALS)]
    record_property("tried", TRIALS)
    record_property("survived", sum(outcomes))
    assert outcomes == [True] * TRIALS


def trial(training, run: str, number: int, seconds: float, reference: Path) -> bool:
    """Kill a run once or several times and start it again each time.

    Args:
        training: starts runs.
        run: the run's name.
        number: of the trial; it decides when and what is killed.
        seconds: that an undisturbed run takes.
        reference: folder of an undisturbed run.

    Returns:
        Whether weights, history and predictions are those of the undisturbed run, bit by bit, and
        no process is left over.
    """
    chance, name = random.Random(f"{run} {number}"), f"chaos{number}"
    folder = training.folder / name
    for _ in range(chance.randint(1, MOST_KILLS)):
        if not (folder / "timing.json").exists():
            kill(training.start(run, name, **WHOLE), chance, seconds)
    if not (folder / "timing.json").exists():
        training(run, name, **WHOLE)
    success = equal_runs(reference, folder) and not left_over(folder)
    shutil.rmtree(folder)
    return success


def kill(running, chance: random.Random, seconds: float) -> None:
    """Kill the launcher, a process of it, or all, within the time of an undisturbed run."""
    time.sleep(chance.uniform(0, seconds))
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(running.pid)
        everyone = [launcher, *launcher.children(recursive=True)]
        for victim in chance.choice([[launcher], [chance.choice(everyone)], everyone]):
            with suppress(psutil.NoSuchProcess):
                victim.kill()
    running.wait(300)


def left_over(folder: Path) -> list[psutil.Process]:
    """Return processes of a run that are still alive after ``ORPHANS_S``."""
    processes = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in (process.info["cmdline"] or [])
    ]
    return psutil.wait_procs(processes, timeout=ORPHANS_S)[1]
