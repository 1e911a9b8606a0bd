"""A killed run that is started again ends as one never killed, also elsewhere."""

from __future__ import annotations

import json
import random
import shutil
import signal
import statistics
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from another_machine import CPU
from medscale.base.errors import MedscaleError
from medscale.base.files import sha256, write_json
from medscale.base.provenance import gather
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine.parallel.failures import STOPPED
from medscale.engine.plan import MANIFEST, PROGRESS, RunPlan
from medscale.engine.train.fewer import plan_here
from medscale.evaluate.replicates import read
from medscale.evaluate.summary import format_of
from run_comparison import WEIGHTS, distance, equal_runs
from slow_loading import LATE_S
from training_runs import ROOT, WHOLE, fork_ranks


def kill_once(training, run: str, name: str, chance: random.Random) -> bool:
    """Start a run; kill one of its processes or its launcher after a random checkpoint.

    The step is random, not the time: a time after the first checkpoint is often after the end.

    Returns:
        Whether it was killed in its work, not after its end.
    """
    last = chance.randrange(3, 13, 3)  # of 20 steps, with a checkpoint every three
    running = training.start(run, name, **WHOLE)
    folder = training.folder / name / "checkpoints"
    while newest_step(folder) < last and running.poll() is None:
        time.sleep(0.01)
    ranks = (
        [c for c in psutil.Process(running.pid).children() if "-m" in c.cmdline()]
        if running.poll() is None
        else []
    )
    victim = chance.choice([running, *ranks])
    victim.send_signal(signal.SIGKILL)
    running.wait()
    return not (training.folder / name / "timing.json").exists()


def newest_step(folder: Path) -> int:
    return max((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), default=0)


def trial(training, run: str, number: int) -> bool:
    """Kill a run at work, let it continue, and return whether it ends as one never killed."""
    chance, name = random.Random(number), f"killed{number}"
    for attempt in range(8):
        if kill_once(training, run, name, chance):
            break
        shutil.rmtree(training.folder / name)
        assert attempt < 7, "the run always ended before it could be killed"
    training.fork(run, name, **WHOLE)
    equal = equal_runs(training.reference(run, **WHOLE), training.folder / name)
    shutil.rmtree(training.folder / name)
    return equal


@pytest.mark.parametrize("run", ["serial_1cpu", "ddp_2cpu", "fsdp_2cpu", "mp_2cpu"])
def test_killed_at_a_random_step_a_run_ends_bitwise_as_if_never_killed(training, run):
    assert trial(training, run, 0)


@pytest.mark.faults
@pytest.mark.parametrize("run", ["serial_1cpu", "ddp_2cpu", "fsdp_2cpu", "mp_2cpu"])
def test_thirty_kills_a_strategy(training, run):
    equal = [trial(training, run, number) for number in range(30)]
    assert equal == [True] * 30


@pytest.mark.faults
@pytest.mark.parametrize("run", ["serial_1cpu", "ddp_2cpu", "fsdp_2cpu", "mp_2cpu"])
def test_twenty_five_clean_runs_a_strategy_end_without_a_false_failure(training, run):
    assert [training(run, f"clean{number}").name for number in range(25)] == [
        f"clean{n}" for n in range(25)
    ]


def test_two_identical_runs_give_identical_files(training):
    assert equal_runs(training.reference("ddp_2cpu", **WHOLE), training.fork("ddp_2cpu", **WHOLE))


@pytest.mark.parametrize(
    ("first", "then"),
    [("ddp_2cpu", "ddp_4cpu"), ("fsdp_4cpu", "fsdp_2cpu"), ("ddp_2cpu", "mp_2cpu")],
)
def test_a_run_goes_on_with_another_number_of_processes_or_strategy(training, first, then):
    settings = {
        "recipe": {"epochs": 6},
        "parallel": {"checkpoint_every_steps": 5, "stop_after_s": 1e-9},
    }
    training.fork(first, "moved", status=STOPPED, **settings)
    training.fork(then, "moved", recipe={"epochs": 6})
    assert "goes on from epoch" in (training.folder / "moved.log").read_text()
    reference = training.reference(recipe={"epochs": 6})
    assert distance(reference, training.folder / "moved")[0] < 3 * WEIGHTS


def test_a_run_goes_on_with_fewer_devices_than_its_name_has(training):
    recipe, folder = {"epochs": 40}, training.folder / "fewer"
    stop = {"checkpoint_every_steps": 1000, "stop_after_s": 0.2}
    for _ in range(20):  # until an epoch is complete
        training.fork("ddp_4cpu", "fewer", status=STOPPED, recipe=recipe, parallel=stop)
        newest = max(folder.glob("checkpoints/step-*/progress.json"))
        before = json.loads(newest.read_text())
        if before["history"]:
            break
    other = training.start("ddp_4cpu", "fewer", recipe=recipe | {"lr": 0.5}, node={"cpus": 2})
    assert other.wait(300) == 2
    log = (training.folder / "fewer.log").read_text()
    assert "cannot go on with 2 of its 4 devices, since its checkpoints are damaged or of" in log
    assert training.start("ddp_4cpu", "fewer", recipe=recipe, node={"cpus": 2}).wait(300) == 0
    log = (training.folder / "fewer.log").read_text()
    assert "goes on with 2 of its 4 devices" in log
    assert "2 processes of" in log
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 41))
    assert history["processes"].is_monotonic_decreasing
    assert set(history["processes"]) == {4, 2}
    timing = json.loads((folder / "timing.json").read_text())
    full_world_seconds = history.loc[history["processes"] == 4, "seconds"].tolist()
    assert timing["seconds_per_epoch"] == pytest.approx(
        statistics.median(full_world_seconds[1:] or full_world_seconds)
    )
    assert (timing["world_size"], timing["global_batch"]) == (4, 20)
    assert before["device_s"] == pytest.approx(4 * before["wall_s"])
    of_two = 2 * (timing["wall_seconds"] - before["wall_s"])
    assert timing["device_seconds"] == pytest.approx(before["device_s"] + of_two)


def test_a_run_that_goes_on_elsewhere_says_so_and_has_the_times_of_one_machine(training):
    recipe, folder = {"epochs": 40}, training.folder / "elsewhere"
    stop = {"checkpoint_every_steps": 1000, "stop_after_s": 0.2}
    for _ in range(20):  # until an epoch is complete
        paths = training.paths("serial_amp_1gpu", "elsewhere", recipe=recipe, parallel=stop)
        fork_ranks(paths, 1, "another_machine:ElsewhereClassification", status=STOPPED)
        newest = max(folder.glob("checkpoints/step-*/progress.json"))
        if json.loads(newest.read_text())["history"]:
            break
    assert json.loads(newest.read_text())["precision"]["scale"] > 1
    training.fork("serial_amp_1gpu", "elsewhere", recipe=recipe)
    log = (training.folder / "elsewhere.log").read_text()
    environment = json.loads((folder / "environment.json").read_text())
    assert "goes on under other conditions (cpu, format)" in log
    assert f"on {environment['cpu']} in bf16, before on {CPU} in fp16" in log
    earlier = [(record["cpu"], record["format"]) for record in environment["earlier"]]
    assert (environment["format"], earlier) == ("bf16", [(CPU, "fp16")])
    history = pd.read_csv(folder / "history.csv")
    machines = history["hardware"].value_counts()
    assert {CPU, environment["cpu"]} <= set(machines.index)
    assert set(machines.index) <= {CPU, environment["cpu"], f"{CPU} and {environment['cpu']}"}
    timing = json.loads((folder / "timing.json").read_text())
    assert machines[timing["hardware"]] == machines.max()
    seconds = history.loc[history["hardware"] == timing["hardware"], "seconds"]
    assert timing["seconds_per_epoch"] == pytest.approx(seconds[1:].median())
    shutil.copy(paths[0], folder / "spec.json")
    replicate = read(folder)
    assert format_of([replicate]) == "bf16/fp16"
    assert {"cpu", "format"} == set(gather([replicate.environment], {})["differ"])


def test_a_checkpoint_at_the_end_of_an_epoch_is_part_of_the_next_epochs_time(training):
    """The 37 images of an epoch are two steps."""
    settings = {"recipe": {"epochs": 3}, "parallel": {"checkpoint_every_steps": 2}}
    folder = training.fork("ddp_2cpu", **settings)
    history = pd.read_csv(folder / "history.csv")
    assert [value > 0 for value in history["checkpoint_s"]] == [False, True, True]
    trained_s = history[["data_s", "compute_s", "communication_s"]]
    assert trained_s.gt(0).all(axis=None)
    assert trained_s.sum(axis=1).tolist() == pytest.approx(history["seconds"].tolist())
    assert (history["images_per_second"] * history["seconds"]).tolist() == pytest.approx([37] * 3)
    timing = json.loads((folder / "timing.json").read_text())
    assert timing["epoch_seconds"] == pytest.approx(history["seconds"].tolist())
    assert timing["first_epoch_seconds"] == timing["epoch_seconds"][0]
    assert timing["seconds_per_epoch"] == pytest.approx(history["seconds"][1:].mean())
    assert timing["images_per_second"] == pytest.approx(37 / timing["seconds_per_epoch"])
    for kind, seconds in timing["seconds"].items():
        assert seconds == pytest.approx(history[f"{kind}_s"].sum()), kind
    assert sum(timing["seconds"].values()) < timing["wall_seconds"]


def test_the_wait_for_a_rank_that_loads_for_longer_is_in_no_epoch(training):
    fork_ranks(training.paths("ddp_2cpu", "late"), 2, "slow_loading:LateClassification")
    timing = json.loads((training.folder / "late" / "timing.json").read_text())
    assert timing["epoch_seconds"][0] < LATE_S < timing["wall_seconds"]
    assert timing["device_seconds"] == pytest.approx(2 * timing["wall_seconds"])


def test_where_it_cannot_go_on_the_message_says_what_to_type(tmp_path):
    def plan_of(run: str, cpus: int) -> RunPlan:
        return plan(load(ROOT / "config.yaml", {"node": {"cpus": cpus}}), "glaucoma", run, 1)

    def interrupt(step: int, history: list[dict[str, int]]) -> Path:
        folder = tmp_path / "checkpoints" / f"step-{step:09d}"
        write_json(folder / PROGRESS, {"history": history})
        files = {PROGRESS: sha256(folder / PROGRESS)}
        write_json(folder / MANIFEST, {"files": files})
        return folder / PROGRESS

    ddp = plan_of("ddp_4cpu", 2)
    assert plan_here(ddp, tmp_path) == ddp  # nothing was interrupted
    interrupt(5, [])
    with pytest.raises(MedscaleError, match=r"before an epoch was complete.*train ddp_2cpu"):
        plan_here(ddp, tmp_path)
    interrupt(6, [{"processes": 4}])
    interrupt(7, []).write_text('{"history": [{"pro')  # damaged: the one before it counts
    local_plan = plan_here(ddp, tmp_path)
    assert (
        local_plan.nodes,
        local_plan.processes,
        local_plan.replicas,
        local_plan.recipe.accumulate,
    ) == (1, 2, 2, 2)
    assert local_plan.training_digest == ddp.training_digest
    assert local_plan.global_batch == ddp.global_batch
    assert plan_here(plan_of("ddp_4cpu", 8), tmp_path).processes == 4
    with pytest.raises(MedscaleError, match=r"pipeline of 4 devices.*node=\{cpus: 4\}"):
        plan_here(plan_of("mp_4cpu", 2), tmp_path)


def test_signals_stop_in_order_and_the_same_command_goes_on(training):
    settings, log = {"recipe": {"epochs": 60}}, training.folder / "signalled.log"
    for number, epoch in ((signal.SIGTERM, 2), (signal.SIGUSR1, 10)):
        running = training.start("ddp_2cpu", "signalled", **settings)
        training.wait_for(f"epoch {epoch}/", "signalled")
        running.send_signal(number)
        assert running.wait(300) == STOPPED
        assert f"stopped by {number.name} in epoch" in log.read_text()
        assert list((training.folder / "signalled" / "checkpoints").glob("step-*"))
    training.fork("ddp_2cpu", "signalled", **settings)
    assert equal_runs(training.reference("ddp_2cpu", **settings), training.folder / "signalled")
