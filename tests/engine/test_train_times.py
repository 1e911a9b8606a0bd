"""Times of a training: the clock, epochs that count, energy, and the next checkpoint."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pandas as pd
import pynvml
import torch
import torch.distributed as dist

from medscale.data.loader import Batch, Step
from medscale.engine.epochs import timed_epochs
from medscale.engine.plan import Parallel
from medscale.engine.train import loop
from medscale.engine.train.clock import Clock, Meter
from medscale.engine.train.guard import Guard, Watch
from medscale.engine.train.progress import Progress

CPU = torch.device("cpu")


def test_the_clocks_kinds_add_up_to_the_wall():
    before = time.perf_counter()
    clock = Clock(CPU, {})
    start = time.perf_counter()
    for _ in clock.waiting([1, 2]):
        time.sleep(0.02)
    with clock.kind("validation"):
        time.sleep(0.03)
    clock.moved(0.01)
    end = time.perf_counter()
    seconds = clock.settle()
    after = time.perf_counter()
    assert end - start <= sum(seconds.values()) <= after - before
    assert seconds["validation"] >= 0.03
    assert seconds["communication"] == 0.01
    carried = Clock(CPU, seconds)
    assert carried.settle()["validation"] == seconds["validation"]


def test_communication_longer_than_the_epoch_does_not_lengthen_it():
    before = time.perf_counter()
    clock = Clock(CPU, {})
    clock.moved(100.0)
    seconds = clock.settle()
    assert seconds["compute"] == 0
    assert sum(seconds.values()) <= time.perf_counter() - before


def test_a_checkpoint_counts_each_second_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def collect(**_):
        now[0] += 5.0
        return {}

    trainer = object.__new__(loop.Trainer)
    trainer.progress, trainer.started = Progress(processes=4, fewest=4), now[0]
    trainer.watchdog = SimpleNamespace(rest=lambda: None)
    trainer.precision = SimpleNamespace(state=dict)
    trainer.tensors = SimpleNamespace(collect=collect)
    trainer.optimizer = SimpleNamespace(state={})
    trainer.guard = SimpleNamespace(saved=lambda seconds: None)
    for _ in range(2):  # 10 s of training, and a checkpoint of 5 s
        now[0] += 10.0
        trainer._save(Clock(CPU, {}), False)
    assert trainer.progress.wall_s == 25
    trainer.count_time()
    assert (trainer.progress.wall_s, trainer.progress.device_s) == (30, 4 * 30)


def test_seconds_count_for_the_processes_that_trained_in_them():
    progress = Progress(processes=4, fewest=4)
    progress.count_time(10)
    progress.go_on(2)
    progress.count_time(6)
    assert (progress.wall_s, progress.device_s) == (16, 4 * 10 + 2 * 6)


def test_times_are_those_of_the_hardware_of_most_epochs_or_of_the_last():
    progress = Progress(processes=2, fewest=2)
    row = {"val_loss": 1.0, "seconds": 1.0}
    old, new = {"gpus": ["V100", "V100"]}, {"gpus": ["A100"], "cpu": "Xeon"}
    progress.note(old)
    for epoch in (1, 2):
        progress.close_epoch(row | {"epoch": epoch}, None, 9)
    progress.step = 3
    progress.go_on(2)
    progress.note(new)
    for epoch in (3, 4):
        progress.close_epoch(row | {"epoch": epoch}, None, 9)
    progress.go_on(2)  # between two epochs
    progress.note(new)
    history = pd.DataFrame(progress.history)
    assert history["hardware"].tolist() == ["V100", "V100", "V100 and A100", "A100"]
    assert progress.conditions == [old, new]
    assert timed_epochs(history, 2)["epoch"].tolist() == [1, 2]
    progress.close_epoch(row | {"epoch": 5}, None, 9)
    history = pd.DataFrame(progress.history)
    assert timed_epochs(history, 2)["epoch"].tolist() == [4, 5]
    history.loc[4, "processes"] = 1
    assert timed_epochs(history, 2)["epoch"].tolist() == [1, 2]
    assert timed_epochs(history, 8)["epoch"].tolist() == [4, 5]  # none ran on all devices


def test_an_epoch_counts_for_the_fewest_processes_that_trained_a_part_of_it():
    progress = Progress(processes=4, fewest=4, step=3)
    progress.go_on(2)
    progress.go_on(4)
    progress.close_epoch({"epoch": 1, "val_loss": 1.0}, None, 9)
    progress.go_on(3)  # at the beginning of an epoch
    progress.go_on(4)
    progress.close_epoch({"epoch": 2, "val_loss": 1.0}, None, 9)
    assert [row["processes"] for row in progress.history] == [2, 4]
    assert progress.restarts == 4


def test_energy_and_use_come_from_nvml(monkeypatch):
    gpu = SimpleNamespace(uuid="abc")
    energy, wakeup = iter([5_000.0, 12_000.0]), threading.Event()

    def use(handle):
        assert handle == "handle of GPU-abc"
        wakeup.set()
        return SimpleNamespace(gpu=80)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: f"handle of {uuid}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: next(energy))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", use)
    meter = Meter(torch.device("cuda", 0), every_s=0.001)
    assert wakeup.wait(120)
    assert meter.joules() == 7.0
    while meter.use_percent() is None:
        time.sleep(0.001)
    assert meter.use_percent() == 80.0


def test_a_gpu_that_tells_nothing_and_a_cpu_give_none(monkeypatch):
    def refuse(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc")
    )
    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    for device in ("cuda:0", "cpu"):
        meter = Meter(torch.device(device))
        assert (meter.joules(), meter.use_percent()) == (None, None)


def test_a_checkpoint_that_is_due_is_asked_for_once(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: SimpleNamespace(wait=lambda: None))
    world = SimpleNamespace(is_main=True, control=None)
    guard = Guard(world, Parallel(checkpoint_every_s=0.2), Watch())
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.25)
    step, sums = (
        Step([Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1))], 1),
        torch.zeros(3, dtype=torch.int64),
    )
    requests = [guard.after(step, sums, save_finished, "here")[1] for save_finished in range(4)]
    assert requests == [False, True, False, False]
