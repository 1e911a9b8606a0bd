"""The expected time of benchmarks and of external sets, by hand and against the demo's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster_settings import COMPLETE
from medscale.config.configuration import Config, load
from medscale.config.layers import merge
from medscale.config.planning import plan
from medscale.measure import loading
from medscale.resources import benchmarks, compute, cost, jobs
from medscale.serve.formats.registry import PYTORCH_WAYS
from training_runs import ROOT

# Seconds in the demo on two cores of an AMD EPYC (Zen 4), without another load.
DEMO = {
    "enhance": ("melanoma", 25),
    "loading": ("skin", 30),
    "export": ("dermatology", 7),
    "inference": ("dermatology", 6),
    "external": ("glaucoma_external1", 5),
    "reference": ("skin", 1.5),
}


@pytest.fixture
def full(tmp_path: Path) -> Config:
    return load(ROOT / "config.yaml", {"workdir": str(tmp_path)})


def changed(config: Config, study: str, sections: dict[str, Any], **costs: Any) -> Config:
    """Return a configuration with other benchmarks of a study, and numbers of the cost model."""
    old = config.study(study)
    new = old.model_copy(
        update={"benchmarks": type(old.benchmarks).model_validate(sections), "seeds": [1, 2]}
    )
    return config.model_copy(
        update={
            "studies": {**config.studies, study: new},
            "cost": config.cost.model_copy(update=costs),
        }
    )


def seconds(config: Config, rule: str, study: str, cpus: int, **more: str) -> float:
    minutes = benchmarks.minutes(config, rule, {"study": study, **more}, cpus)
    assert minutes is not None
    return 60 * minutes


def forward(config: Config, name: str, cpus: int) -> float:
    """Seconds of a forward pass; each further core costs 4 % of the speed of all."""
    run_plan = plan(config, *name.split("/"), 1).model_copy(update={"backend": "cpu"})
    one = compute.image_seconds(config, run_plan) / 3
    return one / cpus * (1 + 0.04 * (cpus - 1))


def test_the_demos_times_are_met_within_a_factor(tmp_path: Path) -> None:
    demo = load(ROOT / "config.yaml", {"scale": "demo", "workdir": str(tmp_path)})
    for rule, (study, measured) in DEMO.items():
        more = {"run": "serial_1cpu"} if rule == "external" else {}
        ratio = seconds(demo, rule, study, 2, **more) / measured
        assert 1 / 2 < ratio < 3, (rule, ratio)


def test_the_times_of_preprocessing_on_workers_by_hand(full: Config) -> None:
    """Each number of workers reads 2,750 files of 4.4 MB; a core preprocesses 15 a second."""
    config = changed(
        full, "melanoma", {"enhance": {"workers": [1, 4], "repeats": 2}}, start_s=10, hash_mb_s=50
    )
    reading = 2750 * 4.4 / 50
    both = 2 * (10 + reading) + 2750 / 15 * (1 + 1 / 4)
    assert seconds(config, "enhance", "melanoma", 4) == pytest.approx(10 + 2 * both)
    shared = 2 * (10 + reading) + 2750 / 15 * (1 + 1 / 2)  # two cores
    assert seconds(config, "enhance", "melanoma", 2) == pytest.approx(10 + 2 * shared)


def test_the_times_of_loading_by_hand(full: Config) -> None:
    """Of 500 files a second and a core, 1000 are delivered by one process, and by three ways."""
    settings = {"processes": [2, 3], "images": 1000, "batch_size": 16, "repeats": 2}
    config = changed(full, "skin", {"loading": settings}, start_s=10.0, load_per_process=2000.0)
    images, shares = 996, 1 / 2 + 1 / 3  # a multiple of 2 and of 3
    files = images * (1 + 3 * shares) / 500 + 7 * 2 * 16 / 500  # seven times two batches before
    shards = images * shares / 2000
    expected = 10 + 3 * 10 + 2 * (files + shards)  # teams of 1, 2 and 3 processes start
    assert seconds(config, "loading", "skin", 4) == pytest.approx(expected)


def test_the_times_of_exports_and_of_inference_by_hand(full: Config) -> None:
    sections = {
        "export": {
            "runs": ["serial_1gpu", "ddp_2gpu"],
            "formats": ["fp16"],
            "images": 100,
            "calibration": 40,
            "repeats": 2,
        },
        "inference": {
            "ways": ["eager", "compiled", "captured", "onnx"],
            "threads": [1, 0, 8],
            "batches": [1, 200],
            "calls": 50,
            "images": 120,
            "repeats": 2,
        },
    }
    config = changed(full, "skin", sections, start_s=10.0, onnx_s=7.0, compile_s=200.0)
    # PyTorch, ONNX in 32 and in 16 bit: once to compare, and in two repetitions.
    each = [
        10 + 7 + (3 * 3 * 100 + 40) * forward(config, f"skin/{run}", 4)
        for run in ("serial_1gpu", "ddp_2gpu")
    ]
    assert seconds(config, "export", "skin", 4) == pytest.approx(10 + sum(each))
    # On 1 and 4 threads: 50 calls, a pass of 120 by one image and one of 200, 120 decoded ones.
    expected = 10 + 2 * (10 + 2 * 200)
    for run in ("serial_1gpu", "ddp_2gpu"):
        for threads in (1, 4):
            decoding = 120 / 500 / threads
            network = (50 + 120 + 200 + 120) * forward(config, f"skin/{run}", threads)
            expected += 2 * (3 * (network + decoding) + decoding)
    assert seconds(config, "inference", "skin", 4) == pytest.approx(expected)


def test_the_times_of_an_external_set_and_of_the_reference_by_hand(full: Config) -> None:
    sets = [{"title": "another", "source": {"kind": "folder", "path": "x"}}]
    config = load(
        ROOT / "config.yaml",
        {"workdir": str(full.workdir), "studies": {"pneumonia": {"external": sets}}},
    )
    config = changed(config, "pneumonia", {}, start_s=10.0, evaluate_us=50.0)
    # 10,000 images of an unknown folder, 50 a second and a core; two networks of two classes
    run = "serial_1gpu"
    network = 2 * 10_000 * forward(config, f"pneumonia/{run}", 4)
    classes = len(config.study("pneumonia").classes or range(40))
    expected = 10 + 10_000 / 50 / 4 + network + 2 * 50e-6 * 10_000 * classes
    external = seconds(config, "external", "pneumonia_external1", 4, run=run)
    assert external == pytest.approx(expected)
    counts = cost.images(config, "pneumonia")
    reading = sum(counts.values()) / config.cost.load_per_process
    expected = 10 + reading + 50e-6 * counts["test"] * classes
    assert seconds(config, "reference", "pneumonia", 1) == pytest.approx(expected)


def test_the_numbers_of_ways_are_those_of_the_benchmarks() -> None:
    from_files = set(loading.WAYS) - {loading.ALONE, "medscale"}
    assert len(from_files) == benchmarks.SHARING_WAYS
    assert loading.WARM_UP == benchmarks.WARM_UP_BATCHES
    captured = {way for way in PYTORCH_WAYS if way.startswith(benchmarks.CAPTURED)}
    assert {way.removeprefix("captured").strip("_") for way in captured} == {"", "compiled"}
    assert benchmarks.COMPILED in PYTORCH_WAYS


def test_a_benchmark_requests_its_time_of_slurm() -> None:
    """The full scale's took longer than the four attempts of 20 to 160 minutes together allow."""
    config = load(ROOT / "config.yaml", merge(COMPLETE, {}))
    needs = jobs.request(config, "inference", {"study": "dermatology"}, 1)
    assert needs.minutes == benchmarks.minutes(
        config, "inference", {"study": "dermatology"}, config.node.cpus
    )
    assert needs.minutes > 8 * config.cluster.least_minutes
    assert benchmarks.minutes(config, "evaluate", {"study": "skin"}, 1) is None
