"""A run that fails ends soon, says which rank and why, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import warm_python
from medscale.base.errors import EXIT_USER, MedscaleError
from medscale.base.files import read_json
from medscale.engine.parallel import failures
from medscale.engine.parallel import launch as launcher
from medscale.engine.parallel.failures import explain
from medscale.engine.parallel.launch import launch
from medscale.engine.plan import RunPlan
from medscale.engine.train import worker
from medscale.engine.train.replicate import explained
from medscale.engine.train.worker import locked
from medscale.resources import cards
from run_comparison import WEIGHTS, distance
from waiting import until

LAUNCH = """
import sys
from medscale.engine.plan import RunPlan
from medscale.base.errors import tell_user
from medscale.base.files import read_json
from medscale.engine.parallel.launch import launch
from medscale.resources import cards
plan = RunPlan.model_validate(read_json(sys.argv[2]))
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
tell_user(launch)(plan, "faulty_worker", options, cards.reserve)
"""


def run_faulty(
    training, fault: str, run: str = "ddp_2cpu", **changes
) -> subprocess.CompletedProcess[str]:
    arguments = training.command(run, **changes)[2:]
    search = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    return warm_python.run(
        ["-c", LAUNCH, *arguments],
        warm_python.TRAINING,
        cwd=training.folder,
        environment=os.environ | {"FAULT": fault, "PYTHONPATH": search},
        ranks=True,
        seconds=200,
    )


def a_plan(training, run: str, **changes) -> RunPlan:
    spec, *_ = training.paths(run, **changes)
    return RunPlan.model_validate_json(Path(spec).read_text())


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that still work in a folder."""
    processes = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.info["cwd"] == str(folder):
            processes.append(line)
    return processes


@pytest.mark.parametrize(
    ("fault", "run", "message"),
    [
        ("raise:1:1", "ddp_2cpu", "rank 1 failed: ValueError: a test's own error"),
        ("kill:0:1", "ddp_2cpu", "rank 0 was ended by SIGKILL"),
        ("sleep:1:1", "ddp_2cpu", "rank 1 did not finish a step"),
        ("sleep:1:1", "mp_2cpu", "rank 1 did not finish a step"),
        ("stop:1:1", "ddp_2cpu", "rank 1 did not answer"),
    ],
)
def test_one_rank_that_fails_ends_the_run_and_is_named(training, fault, run, message):
    start = time.monotonic()
    process = run_faulty(training, fault, run, parallel={"timeout_s": 5})
    assert process.returncode != 0
    assert message in process.stderr.strip().splitlines()[-1]
    assert time.monotonic() - start < 180
    assert not left_behind(training.folder)


def test_a_serial_run_that_hangs_is_ended_too(training):
    process = run_faulty(training, "sleep:0:1", "serial_1cpu", parallel={"timeout_s": 3})
    assert "rank 0 did not finish a step" in process.stderr.strip().splitlines()[-1]
    assert "faulty_worker" in process.stderr.strip().splitlines()[-1]


def test_errors_of_large_and_small_batches_name_a_remedy(training):
    plan = a_plan(training, "serial_1cpu")
    wrapped = RuntimeError("a stage failed")
    wrapped.__cause__ = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    message = str(explained(wrapped, plan))
    assert message.startswith("out of memory with 20 images a device. Try serial_1cpu_bs10")
    halves = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"accumulate": 2})})
    message = str(explained(wrapped, halves))
    assert message.startswith("out of memory with 10 images a device.")
    assert "recipe.accumulate: 4," in message
    message = str(explained(wrapped, a_plan(training, "serial_1cpu", recipe={"batch_size": 1})))
    assert message.endswith("with 1 image a device: take smaller images or a smaller network")
    alone = ValueError("Expected more than 1 value per channel when training, got input size ...")
    assert str(explained(alone, halves)) == (
        "batch normalization got a part of one image, since the images of a step (20) are divided "
        "(replicas 1, recipe.accumulate 2): raise recipe.batch_size or lower recipe.accumulate"
    )
    assert str(explained(alone, a_plan(training, "mp_2cpu"))).endswith(
        "(replicas 1, recipe.accumulate 1, parallel.microbatches 4): raise recipe.batch_size or "
        "lower parallel.microbatches"
    )
    other_error = ValueError("another error")
    assert explained(other_error, plan) is other_error


def test_a_training_with_one_image_a_step_names_the_remedy_without_a_traceback(training):
    network = {"name": "medical_cnn", "options": {"width": 4}}
    training.fork("serial_1cpu", status=EXIT_USER, model=network, recipe={"batch_size": 1})
    (report,) = training.folder.glob("*.reports/rank0.json")
    assert read_json(report)["message"].endswith(
        "(1) are divided (replicas 1, recipe.accumulate 1): raise recipe.batch_size"
    )
    assert "Traceback" not in (training.folder / "serial_1cpu.log").read_text()


def test_a_report_that_cannot_be_written_is_in_the_log(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv(failures.FOLDER, str(tmp_path / "file"))
    failures.report(ValueError("a cause"), 3, stopped=False, consequence=False)
    assert "rank 3 failed: ValueError: a cause (" in caplog.text


def test_a_closing_terminal_signals_twice_and_the_second_does_not_disturb_the_end():
    before = launcher._handle_signals(set())
    try:
        with pytest.raises(launcher._Hangup, match="SIGHUP"):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGQUIT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_exit_without_a_report_and_a_run_without_any_trace_are_reported(training, tmp_path):
    plan = a_plan(training, "ddp_2cpu")
    ends = {1: SimpleNamespace(timestamp=1, pid=1, exitcode=7)}
    assert "ddp_2cpu: rank 1 ended with exit status 7" in str(explain(plan, tmp_path, ends))
    assert "ended without a message" in str(explain(plan, tmp_path, {}))


def test_a_loss_that_is_not_finite_stops_all_ranks_with_the_ids_of_the_batch(training):
    settings = {"parallel": {"checkpoint_every_steps": 2}}
    command = training.command(
        "ddp_2cpu",
        recipe={"optimizer": "sgd", "lr": 1e3, "clip_norm": None, "epochs": 3},
        **settings,
    )
    process = warm_python.run(command[1:], warm_python.TRAINING, cwd=training.folder, ranks=True)
    assert process.returncode == 2
    assert "the loss is not finite, in epoch" in process.stderr
    assert "these ids in index.parquet: [" in process.stderr
    assert not (training.folder / "ddp_2cpu" / "history.csv").exists()
    epoch, step = map(int, re.search(r"in epoch (\d+) after step (\d+)", process.stderr).groups())
    remaining = [
        int(f.name.removeprefix("step-"))
        for f in (training.folder / "ddp_2cpu" / "checkpoints").glob("step-*")
    ]
    assert remaining
    assert all(number < 2 * (epoch - 1) + step for number in remaining), (
        "weights after a loss that is not finite were kept"
    )


def test_of_two_processes_for_one_run_one_wins_and_the_other_says_so(tmp_path):
    with locked(tmp_path, alone=True), locked(tmp_path, alone=False):
        message = f"is being trained by process {os.getpid()} on"
        with pytest.raises(MedscaleError, match=message), locked(tmp_path, alone=True):
            pass
    with locked(tmp_path, alone=True):  # free again
        pass


def test_a_run_held_by_a_process_of_another_container_of_this_host_is_named(tmp_path, monkeypatch):
    """Its processes have numbers that mean nothing here."""
    monkeypatch.setattr(worker, "TAKE_OVER_S", 0.1)
    process = subprocess.Popen(["true"])
    process.wait()
    with locked(tmp_path, alone=True):
        owner = tmp_path / "checkpoints" / "owner.json"
        numbers = {"launcher": process.pid, "pid": process.pid}
        owner.write_text(json.dumps(json.loads(owner.read_text()) | numbers))
        message = f"is being trained by process {process.pid} on"
        with pytest.raises(MedscaleError, match=message), locked(tmp_path, alone=True):
            pass


def test_a_run_whose_launcher_is_gone_is_taken_over(tmp_path):
    program = (
        "import json, sys, time; from pathlib import Path; import psutil\n"
        "from medscale.engine.train.worker import locked\n"
        f"with locked(Path({str(tmp_path)!r}), alone=True): print('held', flush=True);"
        " time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout.readline() == b"held\n"
        owner = tmp_path / "checkpoints" / "owner.json"
        with pytest.raises(MedscaleError, match="is being trained"), locked(tmp_path, alone=True):
            pass
        process = subprocess.Popen(["true"])
        process.wait()
        owner.write_text(json.dumps(json.loads(owner.read_text()) | {"launcher": process.pid}))
        with locked(tmp_path, alone=True):
            assert orphan.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("error", "status", "bug"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"), EXIT_USER, False),
        (MedscaleError("wrong"), EXIT_USER, False),
        (ValueError("x"), 1, True),
    ],
)
def test_only_bugs_have_a_traceback(caplog, error, status, bug):
    assert worker._report(error, 0) == status
    assert ("a bug or a fault of the system" in caplog.text) == bug


def test_ctrl_c_while_a_rank_imports_prints_no_traceback(tmp_path):
    (tmp_path / "slow.py").write_text("import time; print('up', flush=True); time.sleep(60)")
    search = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-m", "medscale.engine.parallel.orphan", "slow"],
        env=os.environ | {"PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as rank:
        assert rank.stdout.readline() == b"up\n"
        rank.send_signal(signal.SIGINT)
        assert rank.communicate(timeout=20)[1] == b""
        assert rank.returncode == -signal.SIGINT


def test_killing_the_launcher_leaves_no_rank_behind(training):
    running = training.start("ddp_2cpu", recipe={"epochs": 100000})
    training.wait_for("epoch 1/", "ddp_2cpu")
    assert len(left_behind(training.folder)) == 3  # launcher and ranks
    running.send_signal(signal.SIGKILL)
    running.wait()
    until(lambda: not left_behind(training.folder), "the ranks end after their launcher")


def test_two_nodes_meet_and_give_the_serial_runs_weights(training, free_port):
    settings = {"node": {"cpus": 1, "gpus": 0}}
    command = [*training.command("ddp_2cpu", **settings), "--rendezvous", f"localhost:{free_port}"]
    options = {"cwd": training.folder, "ranks": True}
    errors = [training.folder / f"errors{n}" for n in range(2)]
    agents = [
        warm_python.start(
            [*command[1:], "--node", str(n)], warm_python.TRAINING, errors=errors[n], **options
        )
        for n in range(2)
    ]
    statuses = [agent.wait(timeout=120) for agent in agents]
    assert statuses == [0, 0], [file.read_text() for file in errors]
    assert distance(training.reference(), training.folder / "ddp_2cpu")[0] < WEIGHTS


def test_a_run_over_two_nodes_without_a_meeting_point_is_reported(training, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    plan = a_plan(training, "ddp_2cpu", node={"cpus": 1, "gpus": 0})
    with pytest.raises(MedscaleError, match="runs on 2 nodes: start it once on each"):
        launch(plan, "worker", {}, cards.reserve)
    for number in (-1, 2):  # rank 0 would wait for a node 1 that never comes
        with pytest.raises(MedscaleError, match=f"0 to 1, and this one was .* number {number}:"):
            launch(plan, "worker", {}, cards.reserve, "localhost:1", number)


def test_signals_have_the_callers_handlers_again_after_a_run(training):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(MedscaleError):
        launch(a_plan(training, "serial_1cpu"), "no_such_module", {}, cards.reserve)
    assert [signal.getsignal(number) for number in numbers] == before


def test_stuck_ranks_are_killed_where_the_clock_was_set_back(tmp_path, monkeypatch):
    """The report of the first failure is then dated in the future."""
    report = tmp_path / "rank0.json"
    report.write_text("{}")
    os.utime(report, (time.time() + 3600,) * 2)
    rank = SimpleNamespace(pid=7, kill=lambda: shutil.rmtree(tmp_path))  # which ends the watch
    monkeypatch.setattr(launcher, "GRACE_S", 0.1)
    monkeypatch.setattr(launcher, "_ranks", lambda: [rank])
    watch = threading.Thread(target=launcher._kill_stuck_ranks, args=(tmp_path,), daemon=True)
    watch.start()
    watch.join(60)
    assert not watch.is_alive()
