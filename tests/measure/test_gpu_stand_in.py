"""The benchmarks of a GPU run with a CPU in its place; the rates mean nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from bench import gpu, gpu_loops, gpu_session
from medscale.engine.plan import RunPlan
from medscale.engine.train import clock
from medscale.measure.profiling import ceilings
from training_runs import fork_ranks

SIDE = 32
ON_CPU = {"backend": "cpu", "stand_in": True}


class OnHost(TorchFunctionMode):
    """Make tensors on the CPU that were asked for on a GPU."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        if str(options.get("device")).startswith("cuda"):
            options["device"] = "cpu"
        return function(*arguments, **options)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plain loops run on the CPU, without graphs, for a moment."""
    for kind in (torch.Tensor, torch.nn.Module):
        monkeypatch.setattr(kind, "cuda", lambda self: self)
    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name in ("max_memory_allocated", "current_device"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr(clock, "_nvml_handle", lambda device: None)
    monkeypatch.setattr(ceilings, "measure", lambda *_: {"flops": 1e9, "bytes": 1e9})
    monkeypatch.setattr(gpu_loops, "lacking", lambda *_: None)
    monkeypatch.setattr(gpu_loops, "capture", lambda step: step)
    monkeypatch.setattr(gpu_loops, "gap", lambda step: 0.5)
    monkeypatch.setattr(gpu_loops, "SECONDS", 0.001)
    monkeypatch.setattr(gpu_loops, "WARM_UP", 1)


@pytest.mark.filterwarnings("ignore")  # of autocast and loss scaling without a GPU
@pytest.mark.parametrize(("way", "name"), [("nchw", "fp16"), ("nhwc", "tf32"), ("graph", "bf16")])
def test_a_plain_loop_is_measured(on_host, way, name):
    benchmark = torch.backends.cudnn.benchmark
    with OnHost():
        row = gpu_loops.measured("tiny_cnn", SIDE, 4, name, way, True)
    torch.backends.cudnn.benchmark = benchmark
    assert "note" not in row
    assert row["images_per_second"] > 0
    assert row["roofline_s"] > 0
    assert row["gap"] == 0.5


def small(plan: RunPlan, batch: int) -> RunPlan:
    """The same plan with a narrow network, on a CPU."""
    model = plan.model.model_copy(update={"options": {"width": 4}})
    recipe = plan.recipe.model_copy(update={"batch_size": batch})
    return plan.model_copy(update={"model": model, "recipe": recipe, **ON_CPU})


def trained(line: Any) -> None:
    """Train as the command line says, with a forked rank."""
    words = [str(word) for word in line]
    assert Path(gpu.ROOT, words[0]).is_file()
    options = dict(zip(words[1::2], words[2::2], strict=True))
    fork_ranks([options[name] for name in ("--spec", "--shards", "--out", "--log")], 1)


@pytest.mark.parametrize("way", ["engine", "engine_ddp"])
def test_a_run_of_the_engine_is_measured(tmp_path, monkeypatch, way):
    def run(line: list[str]) -> subprocess.CompletedProcess[str]:
        trained(line[1:])
        return subprocess.CompletedProcess(line, 0, "", "")

    planned = gpu.planned
    monkeypatch.setattr(gpu, "planned", lambda *cell: small(planned(*cell), 4))
    monkeypatch.setattr(gpu, "lacking", lambda *_: None)
    monkeypatch.setattr(gpu, "_run", run)
    monkeypatch.setattr(gpu, "STEPS", 2)
    monkeypatch.setitem(gpu.NETWORKS, "medical_cnn", ("glaucoma", SIDE, SIDE))
    ((name, row),) = gpu._engines("medical_cnn", 4, "bf16", [way], tmp_path, False)
    assert name == way
    assert "note" not in row
    assert row["images_per_second"] > 0
    assert 0 <= row["data"] < 1
    assert row["setup_s"] > 0


def test_the_published_run_is_measured(monkeypatch):
    def run(line: Any, *_: Any) -> tuple[str, str]:
        trained(line)
        return gpu_session.DONE, ""

    make_shards, plan = gpu_session.make_shards, gpu_session.plan
    monkeypatch.setattr(
        gpu_session,
        "make_shards",
        lambda folder, *_, **splits: make_shards(folder, 8, SIDE, **dict.fromkeys(splits, 4)),
    )
    monkeypatch.setattr(gpu_session, "plan", lambda *which: small(plan(*which), 4))
    monkeypatch.setattr(gpu_session, "run", run)
    row = gpu_session.train_published()
    assert (row["epochs"], row["batch"]) == (20, 4)
    assert row["images_per_second"] > 0
    assert 0 <= row["data_share"] < 1
