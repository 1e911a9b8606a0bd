"""Parts of training without processes: schedules, decisions, cuts, sums, clock, checkpoints."""

from __future__ import annotations

import math
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pynvml
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data.loader import Batch, Step
from medscale.engine.conflicts import refuse
from medscale.engine.epochs import timed_epochs
from medscale.engine.models.registry import build, stages
from medscale.engine.parallel.cut import balance, measure
from medscale.engine.parallel.model import FIXED, WholeModel, loss_sums, whole_sums
from medscale.engine.parallel.pipeline import Stage, _is_random, micro_batches
from medscale.engine.parallel.precision import GROW_EVERY, Precision
from medscale.engine.plan import Model, Parallel
from medscale.engine.train import loop
from medscale.engine.train.clock import Clock, Meter
from medscale.engine.train.ema import Average
from medscale.engine.train.guard import Guard, Watch
from medscale.engine.train.progress import Progress, means
from medscale.engine.train.recipe import CrossEntropy, learning_rate, plateau
from medscale.engine.train.records import check_ids
from medscale.engine.train.replicate import _check_shares
from medscale.engine.train.step import OptimizerStep

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def a_plan(run="serial_1cpu", **recipe):
    return plan(
        load(ROOT / "config.yaml", {"studies": {"glaucoma": {"recipe": recipe}}}),
        "glaucoma",
        run,
        1,
    )


def test_warm_up_then_cosine_to_zero():
    run_plan = a_plan(epochs=10, warmup_epochs=2, lr=0.1, lr_scaling="none", schedule="cosine")
    rates = [learning_rate(run_plan, step, 5) for step in range(50)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[9:]))
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([torch.zeros(1)], lr=0.1), T_max=40
    )
    for step in range(40):
        assert rates[10 + step] == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        reference.optimizer.step()
        reference.step()


def test_linear_scaling_follows_the_global_batch():
    per_device = {
        "batch_is": "per_device",
        "batch_size": 32,
        "lr": 1e-3,
        "lr_scaling": "linear",
        "warmup_epochs": 0,
    }
    assert learning_rate(a_plan("ddp_4gpu", **per_device), 0, 10) == pytest.approx(4e-3)
    fixed_batch = per_device | {"batch_is": "global"}
    assert learning_rate(a_plan("ddp_4gpu", **fixed_batch), 0, 10) == pytest.approx(1e-3)
    assert a_plan("ddp_amp_mp_4gpu", **per_device).global_batch == 64


@given(st.lists(st.floats(0.01, 10), max_size=30))
def test_plateau_is_that_of_torch(losses):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2, eps=0)
    for loss in losses:
        reference.step(loss)
    assert plateau(losses) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_best_epoch_patience_and_end_are_decided_from_the_history():
    progress = Progress(sums=[5, 5, 5])
    decisions = [
        (progress.close_epoch({"epoch": n, "val_loss": loss}, 2, 9), progress.stopped)
        for n, loss in enumerate([3, 2, 2.5, 2.4], start=1)
    ]
    assert decisions == [(True, ""), (True, ""), (False, ""), (False, "patience")]
    assert (progress.epoch, progress.step, progress.sums) == (4, 0, [0, 0, 0])
    assert progress.best_epoch == 2
    progress = Progress()
    assert progress.close_epoch({"epoch": 1, "val_loss": math.nan}, None, 1) is False
    assert (progress.best_epoch, progress.stopped) == (0, "epochs")
    assert Progress.model_validate(progress.model_dump(mode="json")).stopped == "epochs"


@given(
    st.lists(
        st.floats(-1, 50, width=32) | st.floats(0, 2.0**127, width=32), min_size=1, max_size=20
    ),
    st.randoms(),
)
def test_sums_are_exact_in_any_order(losses, random):
    def total(values):
        return sum(loss_sums(torch.tensor(v), torch.tensor(1)) for v in values)

    shuffled = list(losses)
    random.shuffle(shuffled)
    parts = total(losses)
    assert torch.equal(parts, total(shuffled))
    loss, correct, not_finite = whole_sums(parts.tolist())
    assert loss == sum(round(value * FIXED) for value in losses)
    assert not_finite == 0
    assert means([loss, correct, len(losses)]) == (
        pytest.approx(math.fsum(losses) / len(losses), abs=1 / FIXED, rel=1e-12),
        1,
    )


@pytest.mark.parametrize("loss", [math.inf, math.nan, -math.inf])
def test_a_loss_that_is_not_finite_is_counted_and_kept_out_of_the_sum(loss):
    assert whole_sums(loss_sums(torch.tensor(loss), torch.tensor(1)).tolist()) == (0, 1, 1)


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=10), st.integers(1, 4))
def test_balance_is_the_best_linear_partition(costs, expected):
    from itertools import combinations

    expected = min(expected, len(costs))
    bounds = balance(costs, expected)
    assert bounds[0] == 0
    assert bounds[-1] == len(costs)
    assert all(a < b for a, b in pairwise(bounds))

    def slowest(cut):
        return max(sum(costs[a:b]) for a, b in pairwise(cut))

    best = min(
        slowest([0, *inner, len(costs)])
        for inner in combinations(range(1, len(costs)), expected - 1)
    )
    assert slowest(bounds) == pytest.approx(best)


@given(st.integers(0, 200), st.integers(1, 40))
def test_micro_batches_differ_by_at_most_one_and_cover_each_image_once(images, parts):
    runs = micro_batches(images, parts)
    covered = [i for start, size, count in runs for i in range(start, start + size * count)]
    assert covered == list(range(images))
    sizes = [size for _, size, count in runs for _ in range(count)]
    assert len(sizes) == min(parts, images)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_every_stage_of_a_cut_has_parameters_and_too_many_stages_are_refused():
    network = build(Model(name="tiny_cnn"), 2)
    blocks, images = stages(network), torch.randn(2, 3, 16, 16)
    before = [p.clone() for p in network.parameters()]
    for count in (1, 2, 3, 4):
        cut = measure(blocks, images, Precision("fp32", CPU), count)
        for first, last in pairwise(cut.bounds):
            assert any(list(block.parameters()) for _, block in blocks[first:last])
        assert cut.shapes[0] == [3, 16, 16]
        assert cut.shapes[-1] == [2]
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None for p in network.parameters())
    with pytest.raises(MedscaleError, match="4 blocks with parameters, which cannot make 5 stages"):
        measure(blocks, images, Precision("fp32", CPU), 5)


def test_a_slow_block_decides_the_cut():
    class Slow(nn.Linear):
        def forward(self, images):
            time.sleep(0.02)
            return super().forward(images)

    kinds = (nn.Linear, Slow, nn.Linear, nn.Linear)
    blocks = [(str(number), kind(4, 4)) for number, kind in enumerate(kinds)]
    cut = measure(blocks, torch.randn(2, 4), Precision("fp32", CPU), 2)
    assert cut.bounds == [0, 2, 4]
    assert max(cut.seconds) == cut.seconds[1] >= 0.02


def test_fp16_scaling_skips_an_overflow_and_grows_again():
    precision = Precision("fp16", CPU)
    start = float(precision.scale)
    precision.update(torch.tensor(math.inf))
    assert precision.overflow == 1
    assert precision.scale == start / 2
    for _ in range(GROW_EVERY):
        precision.update(torch.tensor(1.0))
        assert precision.overflow == 0
    assert precision.scale == start
    for _ in range(40):
        precision.update(torch.tensor(math.nan))
    assert precision.scale == 2.0**-14, "the scale has a lower limit"
    new_precision = Precision("fp16", CPU)
    new_precision.load(precision.state())
    assert new_precision.state() == precision.state()


def test_ema_is_used_within_and_gone_after():
    network = nn.Linear(2, 1, bias=False)
    average = Average(network, 0.5)
    with torch.no_grad():
        network.weight.fill_(1.0)
    start = average.weights["weight"].clone()
    average.update()
    with average.used():
        assert torch.allclose(network.weight, (start + 1) / 2)
    assert torch.equal(network.weight, torch.ones(1, 2))


@pytest.mark.parametrize(("ids", "says"), [([1, 2, 2], "of 2 images"), ([1, 2], "2 predictions")])
def test_an_image_that_is_missing_or_predicted_twice_is_refused(ids, says):
    with pytest.raises(MedscaleError, match=says):
        check_ids(np.array(ids), "val", 3)


def test_class_weights_have_mean_one_over_the_training_images():
    counts = np.array([30, 10])
    weighted = CrossEntropy(a_plan(class_weights=True).recipe, counts, CPU)
    logits = torch.zeros(40, 2)
    labels = torch.tensor([0] * 30 + [1] * 10)
    assert float(weighted(logits, labels)) == pytest.approx(40 * math.log(2), rel=1e-5)
    assert float(weighted(logits[:1], labels[-1:])) == pytest.approx(2 * math.log(2), rel=1e-5)


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


def test_a_scale_is_that_of_the_same_format():
    """A training goes on in another format if another kind of GPU decides ``recipe.half``."""
    bf16, fp16 = Precision("bf16", CPU), Precision("fp16", CPU)
    first = float(fp16.scale)
    fp16.load(bf16.state())
    assert float(fp16.scale) == first
    bf16.load(fp16.state())
    assert float(bf16.scale) == 1
    fp16.load({"scale": 8.0, "good_steps": 3})
    assert fp16.state() == {"scale": 8.0, "good_steps": 3}


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


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "expected"),
    [(8, 2, 2, 4), (8, 2, 1, 8), (6, 2, 2, 3), (6, 2, 1, 6), (6, 1, 2, 2)],
)
def test_fewer_devices_have_no_more_images_at_a_time(batch, accumulate, processes, expected):
    settings = {"batch_size": batch, "batch_is": "global", "accumulate": accumulate}
    fewer = a_plan("ddp_4cpu", **settings).on_fewer(processes)
    assert (fewer.recipe.accumulate, fewer.replicas, fewer.global_batch) == (
        expected,
        processes,
        batch,
    )
    refuse(fewer)


@pytest.mark.parametrize("number_format", ["fp32", "fp16"])
@pytest.mark.parametrize("limit", [None, 0.01, 1000.0])
def test_the_gradient_of_a_step_is_that_of_its_mean_loss_clipped_without_the_scale(
    number_format, limit
):
    torch.manual_seed(0)
    network, images = nn.Linear(8, 2), torch.randn(5, 8)
    labels, precision = torch.tensor([0, 1, 1, 0, 1]), Precision(number_format, CPU)
    nn.functional.cross_entropy(network(images), labels).backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), math.inf if limit is None else limit)
    assert 0.01 < norm < 1000, "one limit has an effect, the other has none"
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    world = SimpleNamespace(device=CPU, replicas=1)
    model = WholeModel(network, world, precision)
    shares = []
    model.average_buffers = shares.append
    optimizer = SimpleNamespace(zero_grad=network.zero_grad, step=lambda: None)
    criterion = CrossEntropy(a_plan(label_smoothing=0, class_weights=False).recipe, None, CPU)
    step = OptimizerStep(model, optimizer, Average(network, None), precision, criterion, limit)
    step([Batch(images[:3], labels[:3], labels[:3]), Batch(images[3:], labels[3:], labels[3:])], 5)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        rounding = 1e-5 if number_format == "fp32" else 0.01
        assert (parameter.grad - gradient).norm() < rounding * gradient.norm()
    assert shares == [1.0]
    step([Batch(images[:3], labels[:3], labels[:3])], 5)  # the other images are another replica's
    assert shares == [1.0, 0.6]


def test_frozen_parts_keep_their_statistics_in_training():
    description = Model(name="medical_cnn", options={"width": 4}, trained="last_block")
    network = build(description, 2)
    model = WholeModel(network, SimpleNamespace(device=CPU, replicas=1), Precision("fp32", CPU))
    model.train(True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    criterion = CrossEntropy(a_plan(label_smoothing=0, class_weights=False).recipe, None, CPU)
    model.backward([(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 1, 0]))], criterion, 4)
    changed = {
        name for name, value in network.state_dict().items() if not value.equal(before[name])
    }
    statistics = {name for name in before if name.startswith("context.") and "bn.r" in name}
    assert {name for name in changed if "num_batches" not in name} == statistics
    assert len(statistics) == 10, "mean and variance of 5 layers"
    assert all(part.training for part in network.head)


def test_the_training_digest_ignores_how_the_work_is_shared_and_nothing_else():
    fixed_settings = {"batch_is": "global", "lr_scaling": "none"}
    base = a_plan("ddp_2cpu", **fixed_settings).training_digest
    assert base == a_plan("fsdp_4cpu", **fixed_settings).training_digest
    assert base == a_plan("serial_1cpu", accumulate=4, **fixed_settings).training_digest
    assert base != a_plan("ddp_amp_2cpu", **fixed_settings).training_digest
    assert base != a_plan("ddp_2cpu", **fixed_settings, weight_decay=0.5).training_digest
    assert base != a_plan("ddp_2cpu", **fixed_settings, lr=0.5).training_digest


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


@pytest.mark.parametrize(("smallest", "refused"), [(3, True), (4, False)])
def test_synchronized_statistics_refuse_micro_batches_without_images(smallest, refused):
    run = a_plan("ddp_2gpu", sync_batchnorm=True, accumulate=4)
    training = SimpleNamespace(smallest_share=smallest)
    if refused:
        with pytest.raises(MedscaleError, match="smallest share of a step is 3"):
            _check_shares(run, training)
    else:
        _check_shares(run, training)


def test_a_block_is_random_by_dropout_or_stochastic_depth():
    drawing = [nn.Dropout(0.1), nn.Dropout2d(0.1), DropPath(0.1)]
    assert [
        _is_random(module) for module in (*drawing, nn.Dropout(0.0), DropPath(0.0), nn.ReLU())
    ] == [True] * 3 + [False] * 3


def test_dropout_in_a_pipeline_does_not_depend_on_the_cut():
    blocks = [(str(number), nn.Dropout(0.5)) for number in range(4)]
    precision, images = Precision("fp32", CPU), torch.ones(64, 64)

    def output(*bounds, chunk=0, before=0, seed=5):
        x = images
        for first, last in pairwise([0, *bounds, 4]):
            stage = Stage(blocks[first:last], first, precision, channels_last=False).train()
            stage.seed, stage.before, stage.chunk = seed, before, chunk
            x = stage(x)
        return x

    whole = output()
    assert 0.03 < (whole > 0).float().mean() < 0.1, "one pixel of 16 stays"
    for bounds in ((1,), (2,), (3,), (1, 2, 3)):
        assert output(*bounds).equal(whole)
    for other in ({"chunk": 1}, {"before": 1}, {"seed": 6}):
        assert not output(2, **other).equal(whole)
