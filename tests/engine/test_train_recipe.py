"""The recipe of a training: rates, decisions from the history, sums, gradients and weights."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.data.loader import Batch
from medscale.engine.conflicts import refuse
from medscale.engine.models.registry import build
from medscale.engine.parallel.apply import synchronized
from medscale.engine.parallel.model import FIXED, WholeModel, loss_sums, whole_sums
from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Model
from medscale.engine.train.ema import Average
from medscale.engine.train.progress import Progress, means
from medscale.engine.train.recipe import CrossEntropy, learning_rate, plateau
from medscale.engine.train.records import check_ids
from medscale.engine.train.replicate import _check_shares
from medscale.engine.train.step import OptimizerStep
from training_runs import recipe_plan

CPU = torch.device("cpu")


def test_warm_up_then_cosine_to_zero():
    run_plan = recipe_plan(epochs=10, warmup_epochs=2, lr=0.1, lr_scaling="none", schedule="cosine")
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


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_other_schedules_keep_the_rate_after_the_warm_up(schedule):
    recipe = {"epochs": 3, "warmup_epochs": 0.5, "lr": 0.1, "lr_scaling": "none"}
    run_plan = recipe_plan(**recipe, schedule=schedule)
    rates = [learning_rate(run_plan, step, 4) for step in range(12)]
    assert rates == pytest.approx([0.05] + 11 * [0.1])


def test_linear_scaling_follows_the_global_batch():
    per_device = {
        "batch_is": "per_device",
        "batch_size": 32,
        "lr": 1e-3,
        "lr_scaling": "linear",
        "warmup_epochs": 0,
    }
    assert learning_rate(recipe_plan("ddp_4gpu", **per_device), 0, 10) == pytest.approx(4e-3)
    fixed_batch = per_device | {"batch_is": "global"}
    assert learning_rate(recipe_plan("ddp_4gpu", **fixed_batch), 0, 10) == pytest.approx(1e-3)
    assert recipe_plan("ddp_amp_mp_4gpu", **per_device).global_batch == 64


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
    weighted = CrossEntropy(recipe_plan(class_weights=True).recipe, counts, CPU)
    logits = torch.zeros(40, 2)
    labels = torch.tensor([0] * 30 + [1] * 10)
    assert float(weighted(logits, labels)) == pytest.approx(40 * math.log(2), rel=1e-5)
    assert float(weighted(logits[:1], labels[-1:])) == pytest.approx(2 * math.log(2), rel=1e-5)


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "expected"),
    [(8, 2, 2, 4), (8, 2, 1, 8), (6, 2, 2, 3), (6, 2, 1, 6), (6, 1, 2, 2)],
)
def test_fewer_devices_have_no_more_images_at_a_time(batch, accumulate, processes, expected):
    settings = {"batch_size": batch, "batch_is": "global", "accumulate": accumulate}
    fewer = recipe_plan("ddp_4cpu", **settings).on_fewer(processes)
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
    criterion = CrossEntropy(recipe_plan(label_smoothing=0, class_weights=False).recipe, None, CPU)
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
    criterion = CrossEntropy(recipe_plan(label_smoothing=0, class_weights=False).recipe, None, CPU)
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
    base = recipe_plan("ddp_2cpu", **fixed_settings).training_digest
    assert base == recipe_plan("fsdp_4cpu", **fixed_settings).training_digest
    assert base == recipe_plan("serial_1cpu", accumulate=4, **fixed_settings).training_digest
    assert base != recipe_plan("ddp_amp_2cpu", **fixed_settings).training_digest
    assert base != recipe_plan("ddp_2cpu", **fixed_settings, weight_decay=0.5).training_digest
    assert base != recipe_plan("ddp_2cpu", **fixed_settings, lr=0.5).training_digest


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18", "medical_cnn"])
def test_synchronized_batch_norm_changes_no_other_layer(name):
    """The batch norms of timm's EfficientNet contain its activations."""
    torch.manual_seed(0)
    network = build(Model(name=name), 3).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs = network(images)
        names = list(network.state_dict())
        converted = synchronized(network, None)
        assert torch.equal(converted(images), outputs)
    assert list(converted.state_dict()) == names
    norms = [p for p in converted.modules() if isinstance(p, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


@pytest.mark.parametrize(("smallest", "refused"), [(3, True), (4, False)])
def test_synchronized_statistics_refuse_micro_batches_without_images(smallest, refused):
    run = recipe_plan("ddp_2gpu", sync_batchnorm=True, accumulate=4)
    training = SimpleNamespace(smallest_share=smallest)
    if refused:
        with pytest.raises(MedscaleError, match="smallest share of a step is 3"):
            _check_shares(run, training)
    else:
        _check_shares(run, training)
