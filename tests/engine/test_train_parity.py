"""Every strategy trains as the serial run does: two uneven steps with one global batch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.engine.parallel.apply import apply_strategy
from medscale.engine.plan import RunPlan
from run_comparison import LOSS, WEIGHTS, distance

LOW_WEIGHTS, LOW_LOSS = 2e-2, 5e-3  # under bf16


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("serial_1cpu", {"recipe": {"accumulate": 3}}),
        ("ddp_2cpu", {}),
        ("ddp_2cpu", {"recipe": {"accumulate": 2}}),
        ("ddp_4cpu", {}),
        ("fsdp_2cpu", {}),
        ("fsdp_2cpu", {"recipe": {"optimizer": "sgd"}}),
        ("fsdp_4cpu", {"recipe": {"accumulate": 2}}),
        ("mp_2cpu", {"parallel": {"schedule": "gpipe", "microbatches": 4}}),
        ("mp_2cpu", {"parallel": {"microbatches": 1}}),
        ("mp_4cpu", {"parallel": {"schedule": "1f1b", "microbatches": 6}}),
        ("ddp_mp_4cpu", {"recipe": {"ema": 0.9}}),
    ],
)
def test_two_steps_give_the_serial_runs_loss_and_weights(training, run, changes):
    recipe = {key: value for key, value in changes.get("recipe", {}).items() if key != "accumulate"}
    serial = training.reference(recipe=recipe)
    weights, loss, chances = distance(serial, training.fork(run, "other", **changes))
    assert weights < WEIGHTS
    assert loss < LOSS
    assert chances < WEIGHTS


@pytest.mark.parametrize(
    ("run", "twin", "accumulate", "recipe"),
    [
        ("mp_2cpu", "serial_1cpu", 1, {"ema": 0.9}),
        ("mp_2cpu", "serial_1cpu", 2, {"optimizer": "sgd", "clip_norm": 0.05}),
        ("ddp_mp_4cpu", "ddp_2cpu", 1, {"ema": 0.9, "optimizer": "sgd", "clip_norm": 0.05}),
    ],
)
def test_micro_batches_of_a_pipeline_are_those_of_an_accumulated_step(
    training, run, twin, accumulate, recipe
):
    """Batch normalization takes the same images, also of 17 images in uneven parts."""
    model = {"name": "medical_cnn", "options": {"width": 4, "dropout": 0.0}}
    parts, of_twin = ({**recipe, "accumulate": n * accumulate} for n in (1, 2))
    pipeline = training.fork(run, "p", model=model, recipe=parts, parallel={"microbatches": 2})
    folder = training.fork(twin, "t", model=model, recipe=of_twin)
    weights, loss, chances = distance(pipeline, folder)  # of the statistics, too
    assert weights < WEIGHTS
    assert loss < LOSS
    assert chances < WEIGHTS
    assert any("running_var" in name for name in load_file(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("run", "model"),
    [
        ("ddp_2cpu", {"trained": "last_block", "metadata": ["age", "sex"]}),
        ("fsdp_2cpu", {"trained": "last_layer", "metadata": ["sex"]}),
    ],
)
def test_metadata_and_frozen_parts_train_alike(training, run, model):
    serial = training.reference(model=model)
    weights, loss, _ = distance(serial, training.fork(run, model=model))
    assert weights < WEIGHTS
    assert loss < LOSS
    assert any(name.startswith("metadata.") for name in load_file(serial / "model.safetensors"))


def test_a_pipeline_refuses_metadata(training):
    spec, *_ = training.paths("mp_2cpu", model={"metadata": ["age"]})
    plan = RunPlan.model_validate_json(Path(spec).read_text())
    with pytest.raises(MedscaleError, match="trains the whole network on images alone"):
        apply_strategy(nn.Identity(), plan, None, None, None)


def test_a_cut_of_another_network_is_measured_again(training):
    cut_file = training.folder / "mp_2cpu" / "checkpoints" / "cut.json"
    write_json(cut_file, {"key": "another network's", "bounds": [0, 9]})
    folder = training.fork("mp_2cpu")
    assert distance(training.reference(), folder)[0] < WEIGHTS
    assert "another" not in cut_file.read_text()


def test_the_command_trains_as_forked_ranks_do(training):
    folder = training("ddp_2cpu")
    weights, loss, chances = distance(folder, training.fork("ddp_2cpu", "forked"))
    assert (weights, loss, chances) == (0, 0, 0)


def test_fsdp_trains_on_its_own_weights_after_an_epoch_that_was_not_the_best(training):
    recipe = {"ema": 0.5, "epochs": 5, "lr": 1e-1, "schedule": "constant"}
    serial = training.reference(recipe=recipe)
    losses = pd.read_csv(serial / "history.csv")["val_loss"]
    assert losses.idxmin() < len(losses) - 2, "each epoch was the best"
    weights, loss, _ = distance(serial, training.fork("fsdp_2cpu", recipe=recipe))
    assert weights < WEIGHTS
    assert loss < 1e-4


def test_the_best_epoch_of_a_training_that_diverges_is_that_of_the_smallest_loss(training):
    """Sums of such losses exceed 64 bits in units of 1/FIXED."""
    recipe = {"epochs": 4, "lr": 1e3, "clip_norm": None, "schedule": "constant"}
    folder = training.fork("ddp_2cpu", recipe=recipe)
    losses = pd.read_csv(folder / "history.csv")[["train_loss", "val_loss"]]
    assert 11 * losses["val_loss"].max() > 2**39
    assert losses.ge(0).all(axis=None)
    best_epoch = read_json(folder / "timing.json")["best_epoch"]
    assert best_epoch == losses["val_loss"].idxmin() + 1


def test_mixed_precision_differs_by_its_own_rounding_alone(training):
    serial, low = training.reference(), training.fork("ddp_amp_2cpu")
    weights, loss, _ = distance(serial, low)
    assert 0 < weights < LOW_WEIGHTS
    assert loss < LOW_LOSS
    mixed_distance = distance(training.fork("serial_amp_1cpu"), low)
    assert mixed_distance[0] < LOW_WEIGHTS


def test_every_sample_is_predicted_once_with_more_replicas_than_images_in_a_step(training):
    folder = training.fork("ddp_4cpu", recipe={"batch_size": 5})
    predicted = pd.read_parquet(folder / "predictions.parquet")
    assert len(predicted) == 20
    assert predicted["id"].is_unique
    assert distance(training.reference(recipe={"batch_size": 5}), folder)[0] < WEIGHTS
