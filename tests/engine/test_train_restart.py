"""A killed run that is started again ends as one never killed; damaged checkpoints are skipped."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import random
import resource
import shutil
import signal
import statistics
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from test_train_parity import WEIGHTS
from torch.distributed.checkpoint import CheckpointException, metadata

from another_machine import CPU
from medscale.base.errors import MedscaleError
from medscale.base.files import write_json
from medscale.base.provenance import gather
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine.parallel.failures import STOPPED
from medscale.engine.parallel.join import join
from medscale.engine.parallel.rendezvous import STORE
from medscale.engine.plan import RunPlan
from medscale.engine.train import reading
from medscale.engine.train.checkpoint import Checkpoints
from medscale.engine.train.fewer import plan_here
from medscale.engine.train.progress import Progress
from medscale.evaluate.replicates import read
from medscale.evaluate.summary import format_of
from run_comparison import distance, equal_runs
from slow_loading import LATE_S
from training_runs import WHOLE, fork_ranks

ROOT = Path(__file__).parents[2]


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
        time.sleep(0.002)
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
    training("ddp_4cpu", "fewer", recipe=recipe, node={"cpus": 2})
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
    assert timing["epoch_seconds"] == history["seconds"].tolist()
    assert timing["first_epoch_seconds"] == history["seconds"][0]
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

    ddp = plan_of("ddp_4cpu", 2)
    assert plan_here(ddp, tmp_path) == ddp  # nothing was interrupted
    progress = tmp_path / "checkpoints" / "step-000000005" / "progress.json"
    write_json(progress, {"history": []})
    with pytest.raises(MedscaleError, match=r"before an epoch was complete.*train ddp_2cpu"):
        plan_here(ddp, tmp_path)
    write_json(progress, {"history": [{"processes": 4}]})
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


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """Checkpoints of a world of one rank in this process, with three steps saved."""
    spec = plan(load(ROOT / "config.yaml", {"scale": "demo"}), "glaucoma", "serial_1cpu", 1)
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in {**place, STORE: str(tmp_path / "store")}.items():
        monkeypatch.setenv(name, value)
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with join(spec) as world:
        store = Checkpoints(tmp_path / "checkpoints", world, "key")
        for step in (1, 2, 3):
            assert store.save({"x": torch.full((1000,), float(step))}, Progress(step=step), step)
        yield store
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def restored_value(checkpoints) -> float:
    folder, progress = checkpoints.latest()
    tensors = {"x": torch.zeros(1000)}
    checkpoints.read(folder, tensors)
    assert progress.step == float(tensors["x"][0])
    return float(tensors["x"][999])


def data_file(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda file: file.stat().st_size)


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def zero_block(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[512:1024] = bytes(512)
    file.write_bytes(content)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("damage", [flip_bit, zero_block, truncate, Path.unlink])
def test_a_damaged_newest_checkpoint_is_passed_over_and_reported(checkpoints, damage, caplog):
    damage(data_file(checkpoints._folder / "step-000000003"))
    assert restored_value(checkpoints) == 2
    assert "step-000000003 is skipped" in caplog.text
    assert checkpoints.save({"x": torch.full((1000,), 3.0)}, Progress(step=3), 3)
    assert restored_value(checkpoints) == 3
    assert len(list(checkpoints._folder.glob("step-*"))) == 2


def test_two_are_kept_and_the_newest_whole_one_is_read(checkpoints):
    assert sorted(f.name for f in checkpoints._folder.glob("*")) == [
        "step-000000002",
        "step-000000003",
    ]
    assert restored_value(checkpoints) == 3


def test_a_half_written_checkpoint_is_no_checkpoint(checkpoints):
    partial = checkpoints._folder / ".step-000000004.part"
    shutil.copytree(checkpoints._folder / "step-000000003", partial)
    assert restored_value(checkpoints) == 3
    assert not partial.exists()


def test_a_validation_loss_that_is_not_finite_can_be_kept(checkpoints):
    row = {"epoch": 1, "val_loss": float("nan")}
    assert checkpoints.save({"x": torch.zeros(1000)}, Progress(step=4, history=[row]), 4)
    _, progress = checkpoints.latest()
    assert math.isnan(progress.history[0]["val_loss"])


def test_a_full_disk_is_reported_and_the_checkpoints_before_stay(checkpoints, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        save_succeeded = checkpoints.save({"x": torch.full((100000,), 4.0)}, Progress(step=4), 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not save_succeeded
    assert "could not be written" in caplog.text
    assert restored_value(checkpoints) == 3


def test_checkpoints_of_another_configuration_are_not_used(checkpoints, tmp_path):
    other_checkpoints = Checkpoints(tmp_path / "checkpoints", checkpoints._world, "another key")
    assert other_checkpoints.latest() is None


class Attack:
    """An object whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)

    def __reduce__(self):
        return os.mkdir, (self._file,)


def seal_again(folder: Path) -> None:
    """Write a manifest that fits the changed files of a checkpoint, as an attacker can."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_code_in_the_metadata_of_a_checkpoint_does_not_run(checkpoints, tmp_path, caplog):
    newest = checkpoints._folder / "step-000000003"
    (newest / ".metadata").write_bytes(pickle.dumps(Attack(tmp_path / "attacked")))
    seal_again(newest)
    assert restored_value(checkpoints) == 2
    assert ".metadata names posix.mkdir, which is no part of a checkpoint" in caplog.text
    # PyTorch 2.11 does not pass on the error of the reader.
    with pytest.raises(CheckpointException, match=r"names posix|metadata is None"):
        checkpoints.read(newest, {"x": torch.zeros(1000)})
    assert not (tmp_path / "attacked").exists()


def test_code_in_a_value_of_a_checkpoint_does_not_run(checkpoints, tmp_path):
    """DCP reads a value that is no tensor by torch.load(weights_only=False)."""
    assert checkpoints.save({"x": torch.zeros(2), "lr": 0.5}, Progress(step=4), 4)
    tensors = {"x": torch.ones(2), "lr": 0.0}
    checkpoints.read(checkpoints.latest()[0], tensors)
    assert tensors["lr"] == 0.5

    folder = checkpoints.latest()[0]
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    content = io.BytesIO()
    torch.save(Attack(tmp_path / "attacked"), content)
    (info,) = (i for index, i in metadata.storage_data.items() if index.fqn == "lr")
    with open(folder / info.relative_path, "ab") as file:
        info.offset, info.length = file.tell(), len(content.getvalue())
        file.write(content.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    seal_again(folder)
    with pytest.raises(CheckpointException, match=r"(?i)weights.only"):
        checkpoints.read(folder, tensors)
    assert not (tmp_path / "attacked").exists()


def test_a_checkpoint_with_another_file_than_those_of_its_manifest_is_skipped(checkpoints):
    (checkpoints._folder / "step-000000003" / "__1_0.distcp").write_bytes(b"more")
    assert restored_value(checkpoints) == 2


def test_metadata_cannot_name_files_outside_the_checkpoint(checkpoints, tmp_path):
    newest = checkpoints._folder / "step-000000003"
    metadata = pickle.loads((newest / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = "../step-000000002/__0_0.distcp"
    (newest / ".metadata").write_bytes(pickle.dumps(metadata))
    seal_again(newest)
    assert restored_value(checkpoints) == 2


def test_links_and_checkpoints_of_another_user_are_skipped(checkpoints, tmp_path, monkeypatch):
    newest = checkpoints._folder / "step-000000003"
    newest.rename(tmp_path / "elsewhere")
    newest.symlink_to(tmp_path / "elsewhere")
    assert restored_value(checkpoints) == 2
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert checkpoints.latest() is None


class _ByName:
    """Pickles as the call ``getattr(owner, name)``."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


def test_members_of_enumerations_are_read_as_python_3_11_2_pickles_them():
    kind = metadata._MEM_FORMAT_ENCODING
    by_name = pickle.dumps(_ByName(kind, "TORCH_CONTIGUOUS_FORMAT"))
    assert reading._Unpickler(io.BytesIO(by_name)).load() is kind.TORCH_CONTIGUOUS_FORMAT
    for owner, name in ((kind, "__init_subclass__"), (metadata.Metadata, "__init__")):
        with pytest.raises(MedscaleError, match="no part of a checkpoint"):
            reading._Unpickler(io.BytesIO(pickle.dumps(_ByName(owner, name)))).load()


def test_paths_are_read_as_python_3_13_pickles_them():
    pickled, module = pickle.dumps(Path("a"), protocol=2), type(Path("a")).__module__
    for name in (b"pathlib", b"pathlib._local"):
        content = pickled.replace(f"c{module}\n".encode(), b"c" + name + b"\n")
        assert content.startswith(b"\x80\x02c" + name + b"\n")
        assert reading._Unpickler(io.BytesIO(content)).load() == Path("a")
