"""What `medscale check` says of GPUs, with a simulated driver; needs no GPU."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pynvml
import pytest
import torch

from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.resources import cards, cost, gpus
from medscale.workflow import preflight
from training_runs import ROOT

A100 = ("NVIDIA A100-SXM4-40GB", 40 * 1024)
T4 = ("Tesla T4", 15 * 1024)


@pytest.fixture
def machine(monkeypatch):
    """A function that simulates a machine's GPUs and its driver."""

    def simulate(*present, usable=True, capability=(8, 0), parts=0):
        def mode(handle):
            if not parts:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return [pynvml.NVML_DEVICE_MIG_ENABLE, 0]

        def part(handle, number):
            if number >= parts:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
            return f"MIG-{handle}/{number}"

        functions = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(present),
            "nvmlDeviceGetHandleByIndex": lambda number: f"GPU-{number}",
            "nvmlDeviceGetUUID": lambda handle: handle,
            "nvmlDeviceGetMigMode": mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": part,
            "nvmlDeviceGetHandleByUUID": lambda uuid: int(uuid.split("-")[1]),
            "nvmlDeviceGetName": lambda number: present[number][0],
            "nvmlDeviceGetMemoryInfo": lambda number: SimpleNamespace(
                total=present[number][1] * 2**20
            ),
            "nvmlSystemGetDriverVersion": lambda: "535.104.05",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12020,
        }
        for name, function in functions.items():
            monkeypatch.setattr(pynvml, name, function)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name, value in {
            "is_available": usable,
            "device_count": len(present),
            "get_arch_list": ["sm_75", "sm_90", "compute_120"],
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: present[number][0])

    return simulate


def messages(*runs: str) -> list[tuple[str, str]]:
    """Levels and texts on GPUs of a check of the melanoma study's runs."""
    config = load(ROOT / "config.yaml")
    plans = [plan(config, "melanoma", run, 1) for run in runs]
    graph = SimpleNamespace(config=config)
    findings = preflight._devices(graph, plans)
    return [(finding.level, finding.text) for finding in findings if finding.subject == "GPUs"]


def test_cards_are_named_with_their_memory(machine):
    machine(A100, A100)
    assert messages("ddp_2gpu") == [("ok", "2 (NVIDIA A100-SXM4-40GB, 40 GB), up to 2 needed")]


def test_cards_that_differ_are_noted_where_a_run_takes_several(machine):
    machine(A100, T4)
    assert messages("serial_1gpu")[0][0] == "ok"
    assert len(messages("serial_1gpu")) == 1
    [_, (level, text)] = messages("ddp_2gpu")
    assert (level, text.split(":")[0]) == ("note", "the GPUs differ")


def test_a_driver_that_is_too_old_is_named(machine):
    machine(A100, usable=False)
    [(level, text)] = messages("serial_1gpu")
    assert level == "error"
    assert text.endswith("driver 535.104.05 supports CUDA up to 12.2; install a newer driver")


def test_a_card_that_is_too_old_is_named(machine):
    machine(("Tesla V100", 16 * 1024), capability=(7, 0))
    [(level, text)] = messages("serial_1gpu")
    assert level == "error"
    assert "no code for the Tesla V100 (compute capability 7.0; the oldest is 7.5)" in text


def test_a_card_with_too_little_memory_is_noted(machine):
    machine(("NVIDIA T400", 2 * 1024))
    [_, (level, text)] = messages("serial_1gpu")
    assert level == "note"
    assert "of a GPU by the cost model, the smallest has 2 GB: lower recipe.batch_size" in text


def test_too_few_cards_and_no_driver_are_one_error_and_a_place_to_look(machine, monkeypatch):
    machine(A100)
    assert [level for level, _ in messages("ddp_2gpu")] == ["error", "ok"]
    monkeypatch.setattr(cards, "installed_cards", list)
    [(level, text), (_, hint)] = messages("serial_1gpu")
    assert (level, "this machine has 0" in text) == ("error", True)
    assert "nvidia-smi" in hint


@pytest.mark.parametrize("cores", [1, 2])
def test_more_processes_than_cores_are_noted(cores, monkeypatch):
    monkeypatch.setattr(preflight, "usable_cores", lambda: cores)
    config = load(ROOT / "config.yaml")
    plans = [plan(config, "glaucoma", run, 1) for run in ("serial_1cpu", "ddp_2cpu")]
    [finding] = [
        f for f in preflight._devices(SimpleNamespace(config=config), plans) if "CPU" in f.subject
    ]
    assert (finding.level, finding.text) == {
        1: ("note", "a run has 2 CPU processes on 1 core: its speedup means nothing"),
        2: ("ok", "2 cores, up to 2 processes a run"),
    }[cores]


def test_a_run_that_needs_more_memory_than_is_free_is_an_error(monkeypatch):
    config = load(ROOT / "config.yaml")
    plans = [plan(config, "glaucoma", run, 1) for run in ("serial_1cpu", "ddp_8cpu")]
    need = cost.estimate(config, plans[1]).memory_mb
    graph = SimpleNamespace(config=config, dask_workers=lambda: 2)
    cases = [(need + 1, None, "ok"), (2 * need, need - 1, "error"), (need - 1, None, "error")]
    for free_mb, limit_mb, level in cases:
        memory = SimpleNamespace(available=free_mb * 2**20)
        limit = limit_mb and limit_mb * 2**20
        monkeypatch.setattr(preflight.psutil, "virtual_memory", lambda memory=memory: memory)
        monkeypatch.setattr(preflight, "memory_limit", lambda limit=limit: limit)
        finding = preflight._memory(graph, plans)
        assert finding.level == level
        assert f"about {need / 1024:.1f} GB needed" in finding.text
    assert finding.text.endswith("lower recipe.batch_size or dask.workers")
    graph.dask_workers = lambda: 1000  # 400 MB each
    assert "about 390.6 GB needed" in preflight._memory(graph, plans).text


def test_parts_of_a_card_are_leased_in_its_place(machine):
    machine(A100, parts=2)
    assert cards.visible() == ["MIG-GPU-0/0", "MIG-GPU-0/1"]


def test_a_shortened_uuid_is_a_card_without_a_name(machine, monkeypatch):
    machine(A100)

    def unknown(uuid):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", unknown)
    assert gpus.describe(["GPU-8932"]) == []


@pytest.mark.parametrize(
    ("family", "host", "text"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "[::1]")],
)
def test_a_dask_scheduler_is_found_at_its_address(family, host, text):
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        listener.listen()
        address = f"tcp://{text}:{listener.getsockname()[1]}"
        graph = SimpleNamespace(config=SimpleNamespace(dask=SimpleNamespace(scheduler=address)))
        [finding] = preflight._dask(graph)
        assert (finding.level, finding.text) == ("ok", f"scheduler {address} answers")
    [finding] = preflight._dask(graph)
    assert (finding.level, "does not answer" in finding.text) == ("error", True)
    graph.config.dask.scheduler = "tcp://no-port"
    assert [finding.level for finding in preflight._dask(graph)] == ["error"]
