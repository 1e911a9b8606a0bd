"""Whole runs on a card: graphs against calls for all strategies, restarts, what the log says."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from run_comparison import distance, equal_runs
from training_runs import Training

pytestmark = pytest.mark.gpu

CNN = {"name": "medical_cnn", "options": {"width": 8}}
# 20 steps of two sizes.
RECIPE = {"epochs": 5, "batch_size": 10, "batch_is": "global", "lr": 1e-3, "warmup_epochs": 0}
CLOSE = 1e-3  # largest difference of a weight where the order of sums is not decided


@pytest.fixture
def runs(tmp_path, make_shards, kind) -> Training:
    shards = make_shards(train=37, val=23, test=9, size=32)
    return Training(tmp_path, shards, {"model": CNN}, on_cards=kind == "gpu")


def needs(cards: int) -> None:
    if torch.cuda.is_available() and torch.cuda.device_count() < cards:
        pytest.skip(f"{cards} cards are needed, there is {torch.cuda.device_count()}")


def log(runs: Training, name: str) -> str:
    return (runs.folder / f"{name}.log").read_text()


def compile_seconds(runs: Training, name: str) -> float:
    """The seconds of compilation and warm-up that a run logged."""
    match = re.search(r"of which ([\d.]+) s are compilation and warm-up", log(runs, name))
    assert match, log(runs, name)
    return float(match[1])


@pytest.mark.parametrize(
    ("run", "recipe"),
    [
        ("serial_1", {}),
        ("serial_amp_1", {"accumulate": 2, "ema": 0.9}),
        ("serial_1", {"schedule": "plateau", "epochs": 9, "optimizer": "sgd"}),
        ("serial_amp_1", {"half": "fp16", "ema": 0.9}),
        ("serial_1", {"tf32": True}),
        ("ddp_1", {}),
        ("ddp_amp_1", {"accumulate": 2}),
        ("ddp_2", {}),
        ("ddp_amp_2", {"sync_batchnorm": True}),
        ("fsdp_1", {}),
        # From 6 epochs on, FSDP's evaluation is captured, too.
        ("fsdp_amp_1", {"ema": 0.9, "epochs": 9}),
        ("fsdp_2", {"accumulate": 2, "epochs": 9}),
    ],
)
def test_graphs_train_as_calls_do(runs, kind, run, recipe):
    run = f"{run}{kind}"
    needs(int(run.split("_")[-1][:-3]))
    if kind == "cpu" and ("sync_batchnorm" in recipe or "half" in recipe):
        pytest.skip("fp16 and SyncBatchNorm need GPUs")
    folders = [
        runs.fork(run, graph, recipe={**RECIPE, **recipe, "graph": graph})
        for graph in ("off", "auto")
    ]
    assert equal_runs(*folders), distance(*folders)
    if kind == "gpu":
        assert "CUDA graph" not in log(runs, "off")
        text = log(runs, "auto")
        given_up = run.startswith("fsdp") and "the step is not captured as a CUDA graph: " in text
        assert given_up or "captured steps of 10 and 9 images as CUDA graphs" in text, text


def test_strategies_agree_under_graphs(runs, kind):
    recipe = RECIPE | {"epochs": 1}  # of several epochs, rounding may decide which is the best
    serial = runs.fork(f"serial_1{kind}", recipe=recipe)
    for run in ("ddp_1", "fsdp_1"):
        weights, loss, _ = distance(serial, runs.fork(f"{run}{kind}", recipe=recipe))
        assert weights < CLOSE
        assert loss < CLOSE


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_a_pipeline_without_dropout_is_captured_on_request(runs, kind, schedule):
    needs(2)

    def train(graph: str) -> Path:
        model = {"name": "medical_cnn", "options": {"width": 8, "dropout": 0.0}}
        recipe, parallel = RECIPE | {"graph": graph}, {"schedule": schedule}
        return runs.fork(f"mp_2{kind}", graph, model=model, recipe=recipe, parallel=parallel)

    folders = [train(graph) for graph in ("off", "auto", "on")]
    assert equal_runs(*folders[:2])
    assert equal_runs(folders[0], folders[2]), distance(folders[0], folders[2])
    if kind == "gpu":
        assert "not captured as a CUDA graph: no pipeline was captured" in log(runs, "auto")
        assert "captured steps of 10 and 9 images as CUDA graphs" in log(runs, "on")


def test_a_pipeline_with_dropout_says_that_it_is_not_captured(runs, kind):
    needs(2)
    if kind == "gpu":
        runs.fork(f"mp_2{kind}", recipe=RECIPE)
        assert "not captured as a CUDA graph: its dropout is seeded" in log(runs, f"mp_2{kind}")
        runs.fork(f"mp_2{kind}", "on", recipe=RECIPE | {"graph": "on"}, status=2)


@pytest.mark.parametrize("run", ["serial_amp_1", "ddp_1"])
def test_a_killed_run_ends_as_one_left_alone(runs, kind, run):
    recipe = RECIPE | {"epochs": 24, "ema": 0.9, "schedule": "plateau"}
    often = {"recipe": recipe, "parallel": {"checkpoint_every_steps": 12}}
    undisturbed = runs(f"{run}{kind}", "left", **often)
    running = runs.start(f"{run}{kind}", "killed", **often)
    folder = runs.folder / "killed"
    end = time.monotonic() + 120
    while not list((folder / "checkpoints").glob("step-*")) and time.monotonic() < end:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    killed = runs(f"{run}{kind}", "killed", **often)
    assert json.loads((killed / "timing.json").read_text())["restarts"] == 1
    assert equal_runs(undisturbed, killed)


@pytest.mark.parametrize("run", ["ddp_1", "ddp_2", "fsdp_1", "fsdp_2", "mp_2"])
@pytest.mark.parametrize("graph", ["off", "auto"])
def test_waiting_is_measured_apart_from_computing(runs, kind, run, graph):
    processes = int(run[-1])
    needs(processes)
    folder = runs.fork(f"{run}{kind}", recipe=RECIPE | {"graph": graph})
    timing = json.loads((folder / "timing.json").read_text())
    assert timing["communication_measured"]
    waiting = timing["seconds"]["communication"]
    assert (waiting > 0) if processes > 1 else (0 <= waiting < timing["seconds"]["compute"])


def test_compiled_graphs_repeat_and_reuse_their_code(runs, kind):
    if kind == "cpu":
        pytest.skip("compiling for the CPU takes minutes and is another compiler")
    recipe = RECIPE | {"compile": "on"}
    first = runs.fork(f"serial_amp_1{kind}", "r/first", recipe=recipe)
    assert list((runs.folder / "r" / "compiled").rglob("*.py")), "no compiled code was kept"
    second = runs.fork(f"serial_amp_1{kind}", "r/second", recipe=recipe)
    assert equal_runs(first, second)
    assert compile_seconds(runs, "r/second") < 0.8 * compile_seconds(runs, "r/first")
    called = runs.fork(f"serial_amp_1{kind}", "called", recipe=RECIPE)
    losses = [pd.read_csv(folder / "history.csv")["train_loss"] for folder in (first, called)]
    # Compiled dropout draws other numbers, so only the course is the same.
    assert abs(losses[0].iloc[-1] - losses[1].iloc[-1]) < 0.3
