"""A run that fails ends soon, says which rank and why, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from medscale.engine.parallel.failures import STOPPED

LAUNCH = """
import sys
from medscale.engine.plan import RunPlan
from medscale.base.errors import tell_user
from medscale.base.files import read_json
from medscale.engine.parallel.launch import launch
from medscale.resources import cards
plan = RunPlan.model_validate(read_json(sys.argv[2]))
tell_user(launch)(plan, "faulty_worker", sys.argv[1:], cards.reserve)
"""


def run_faulty(
    training, fault: str, run: str = "ddp_2cpu", **changes
) -> subprocess.CompletedProcess[str]:
    arguments = training.command(run, **changes)[2:]
    environment = os.environ | {"FAULT": fault, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", LAUNCH, *arguments]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=200)


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that still work on a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.pid != os.getpid():
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("fault", "run", "says"),
    [
        ("raise:1:1", "ddp_2cpu", "rank 1 failed: ValueError: a test's own error"),
        ("exit:1:1", "ddp_2cpu", "rank 1 ended with exit status 7"),
        ("kill:0:1", "ddp_2cpu", "rank 0 was ended by SIGKILL"),
        ("sleep:1:1", "ddp_2cpu", "rank 1 did not finish a step"),
        ("sleep:3:1", "ddp_mp_4cpu", "rank 3 did not finish a step"),
        ("stop:1:1", "ddp_2cpu", "rank 1 did not answer"),
    ],
)
def test_one_rank_that_fails_ends_the_run_and_is_named(training, fault, run, says):
    start = time.monotonic()
    done = run_faulty(training, fault, run, parallel={"timeout_s": 5})
    assert done.returncode != 0
    assert says in done.stderr.strip().splitlines()[-1]
    assert time.monotonic() - start < 60
    assert not left_behind(training.folder)


def test_a_serial_run_that_hangs_is_ended_too(training):
    done = run_faulty(training, "sleep:0:1", "serial_1cpu", parallel={"timeout_s": 3})
    assert "rank 0 did not finish a step" in done.stderr.strip().splitlines()[-1]
    assert "faulty_worker" in done.stderr.strip().splitlines()[-1]


def test_out_of_memory_says_which_batch_size_to_try(training):
    done = run_faulty(training, "memory:0:0", "serial_1cpu")
    assert "out of memory with 20 images a device. Try serial_1cpu_bs10" in done.stderr


def test_a_loss_that_is_not_finite_stops_all_ranks_with_the_ids_of_the_batch(training):
    settings = {"parallel": {"checkpoint_every_steps": 1}}
    command = training.command(
        "ddp_2cpu", recipe={"lr": 1e25, "clip_norm": None, "epochs": 3}, **settings
    )
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert "the loss is not finite, in epoch" in done.stderr
    assert "these ids in index.parquet: [" in done.stderr
    assert not (training.folder / "ddp_2cpu" / "history.csv").exists()
    epoch, step = map(int, re.search(r"in epoch (\d+) after step (\d+)", done.stderr).groups())
    kept = [
        int(f.name.removeprefix("step-"))
        for f in (training.folder / "ddp_2cpu" / "checkpoints").glob("step-*")
    ]
    assert all(number < 2 * (epoch - 1) + step for number in kept), (
        "weights after a loss that is not finite were kept"
    )


def test_of_two_processes_for_one_run_one_wins_and_the_other_says_so(training):
    settings = {"recipe": {"epochs": 100000}}
    first = training.start("serial_1cpu", **settings)
    owner = training.folder / "serial_1cpu" / "checkpoints" / "owner.json"
    while not owner.exists():
        time.sleep(0.05)
    second = subprocess.run(
        training.command("serial_1cpu", **settings), stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert second.returncode == 2
    assert "is being trained by process" in second.stderr
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == STOPPED


def test_killing_the_launcher_leaves_no_rank_behind(training):
    running = training.start("ddp_2cpu", recipe={"epochs": 100000})
    training.wait_for("epoch 1/", "ddp_2cpu")
    running.send_signal(signal.SIGKILL)
    running.wait()
    for _ in range(50):
        if not left_behind(training.folder):
            return
        time.sleep(0.1)
    pytest.fail("\n".join(left_behind(training.folder)))


def test_two_nodes_meet_and_give_the_serial_runs_weights(training, free_port):
    from test_train_parity import WEIGHTS, distance

    settings = {"node": {"cpus": 1, "gpus": 0}}
    command = [*training.command("ddp_2cpu", **settings), "--rendezvous", f"localhost:{free_port}"]
    agents = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [agent.communicate(timeout=120)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], told
    assert distance(training("serial_1cpu"), training.folder / "ddp_2cpu")[0] < WEIGHTS


def test_a_run_over_two_nodes_without_a_meeting_point_is_told_so(training):
    command = training.command("ddp_2cpu", node={"cpus": 1, "gpus": 0})
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert "runs on 2 nodes" in done.stderr
