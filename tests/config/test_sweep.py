"""Sweeps of the learning rate and seeds of a comparison: entries, points and trainings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.config import planning
from medscale.config.configuration import Config, load
from medscale.config.layers import Layer
from medscale.config.origins import in_force
from medscale.config.sweep import points, trainings
from medscale.workflow.dag import planned
from medscale.workflow.datasets import Datasets
from medscale.workflow.graph import Graph
from medscale.workflow.runs import Runs

BASE = ROOT / "config.yaml"
SWEEP = {"runs": ["ddp_4gpu"], "lr": [1e-3, "2e-3"], "lr_scaling": ["sqrt", "linear"], "seeds": [7]}


def config_with(study: str = "glaucoma", **settings: Any) -> Config:
    return load(BASE, {"studies": {study: settings}})


def test_a_sweep_becomes_entries_that_share_the_images_of_their_study() -> None:
    config = config_with(sweep=SWEEP)
    names = ["lr_0_001_scaling_sqrt", "lr_0_002_scaling_sqrt", "lr_0_002_scaling_linear"]
    assert config.points("glaucoma") == [f"glaucoma_{name}" for name in names]
    study, point = config.study("glaucoma"), config.study("glaucoma_lr_0_002_scaling_sqrt")
    assert (point.recipe.lr, point.recipe.lr_scaling) == (2e-3, "sqrt")
    changes = {"lr": 2e-3, "lr_scaling": "sqrt"}
    assert point.recipe == study.recipe.model_copy(update=changes)
    assert (point.runs, point.seeds) == (["ddp_4gpu"], [7])
    assert point.sweep is None
    assert point.preprocess == study.preprocess
    assert not set(config.points("glaucoma")) & {*config.active, *config.variants("glaucoma")}
    assert config.owner("glaucoma_lr_0_001_scaling_sqrt") == "glaucoma"


@pytest.mark.parametrize(
    "entry", ["glaucoma_published", "glaucoma_external1", "glaucoma_lr_0_001_scaling_sqrt"]
)
def test_what_belongs_to_a_study_is_carried_out_with_it_alone(entry: str) -> None:
    external = [{"title": "B", "source": {"kind": "folder", "path": "b"}}]
    studies = {"glaucoma": {"sweep": SWEEP, "external": external}}
    assert load(BASE, {"studies": studies, "only": ["glaucoma"]}).active == ["glaucoma"]
    with pytest.raises(MedscaleError, match=f"{entry} is carried out together with glaucoma"):
        load(BASE, {"studies": studies, "only": ["skin", entry]})


def test_points_of_one_learning_rate_are_one_training() -> None:
    config = config_with(sweep={**SWEEP, "runs": ["serial_1gpu", "ddp_4gpu"]})
    rates = {
        run: [p.learning_rate for p in points(config, "glaucoma") if p.run == run]
        for run in ("serial_1gpu", "ddp_4gpu")
    }
    # The batch of one device is that of the recipe: it has no scaling.
    assert rates == {
        "serial_1gpu": [1e-3, 2e-3],
        "ddp_4gpu": pytest.approx([4e-3, 2e-3, 8e-3]),  # 0.001 linear, 0.001 sqrt, 0.002 linear
    }
    three = {"runs": ["ddp_3gpu"], "lr": [1e-4, 3e-4], "lr_scaling": ["linear", "none"]}
    rates = [p.learning_rate for p in points(config_with(sweep=three), "glaucoma")]
    assert rates == pytest.approx([3e-4, 1e-4, 9e-4])  # 3 * 1e-4 is 3.0000000000000003e-4
    study_points = [p for p in points(config, "glaucoma") if p.study == "glaucoma"]
    assert [(p.run, p.lr, p.global_batch) for p in study_points] == [
        ("serial_1gpu", 1e-3, 32),
        ("ddp_4gpu", 1e-3, 128),
    ]
    run_plan = planning.plan(config, "glaucoma_lr_0_002_scaling_sqrt", "ddp_4gpu", 7)
    assert run_plan.learning_rate == pytest.approx(2e-3 * 2)


def test_a_configured_learning_rate_outside_the_sweep_is_no_point() -> None:
    config = config_with(sweep={"runs": ["serial_1gpu"], "lr": [3e-3], "lr_scaling": None})
    assert [p.study for p in points(config, "glaucoma")] == ["glaucoma_lr_0_003"]
    assert not points(config, "skin")


def test_seeds_of_a_comparison_and_of_points_are_trainings_of_these_runs_alone() -> None:
    config = config_with(
        runs=["serial_1gpu", "ddp_2gpu", "ddp_4gpu"],
        convergence={"runs": ["ddp_2gpu"], "seeds": [1, 2, 3, 4, 5]},
        sweep={"runs": ["ddp_4gpu"], "lr": [1e-3, 2e-3], "lr_scaling": None, "seeds": [3, 9]},
    )
    assert config.convergence_runs("glaucoma") == ["serial_1gpu", "ddp_2gpu"]
    assert trainings(config, "glaucoma") == [
        ("glaucoma", "serial_1gpu", [1, 2, 3, 4, 5]),
        ("glaucoma", "ddp_2gpu", [1, 2, 3, 4, 5]),
        ("glaucoma", "ddp_4gpu", [1, 2, 3, 9]),
        ("glaucoma_lr_0_002", "ddp_4gpu", [3, 9]),
    ]
    assert config.seeds_of("glaucoma") == [1, 2, 3]


def test_the_trainings_that_are_counted_are_those_of_snakemakes_graph(tmp_path: Path) -> None:
    """The report also needs the baseline, exported runs and those tested on external sets."""
    external = {"title": "B", "source": {"kind": "folder", "path": "b"}, "runs": ["ddp_4gpu"]}
    study = {
        "runs": ["ddp_2gpu"],
        "seeds": [1],
        "sweep": {"runs": ["ddp_2gpu"], "lr": [1e-3, 2e-3], "lr_scaling": None, "seeds": [3]},
        "convergence": {"runs": ["serial_1gpu"], "seeds": [1, 2]},
        "external": [external],
        "benchmarks": {"export": {"runs": ["serial_amp_1gpu"]}, "inference": None},
    }
    changes = {"only": ["glaucoma"], "studies": {"glaucoma": study}, "workdir": str(tmp_path)}
    graph = Graph(changes)
    assert trainings(graph.config, "glaucoma_published") == [
        ("glaucoma_published", "serial_1gpu", [1])
    ]
    counted = [row for name in graph.with_variants for row in trainings(graph.config, name)]
    with planned(graph, changes, "all", in_image=False) as dag:
        jobs = [job.wildcards for job in dag.jobs if job.rule.name == "train"]
        shards = {str(job.output[0]) for job in dag.jobs if job.rule.name == "shards"}
    assert shards == {*graph.shard_files()}  # which `snakemake data` makes
    assert sorted((job.study, job.run, job.replicate) for job in jobs) == sorted(
        (entry, run, f"seed{seed}") for entry, run, seeds in counted for seed in seeds
    )
    assert {run for _, run, _ in counted} == {
        *("serial_1gpu", "ddp_2gpu", "ddp_4gpu", "serial_amp_1gpu")
    }


def test_runs_of_another_network_are_compared_only_on_request() -> None:
    config = load(BASE)
    assert all("efficientnet" not in run for run in config.convergence_runs("dermatology"))
    assert "ddp_amp_4gpu_bs64" in config.convergence_runs("dermatology")
    config_with_run = config_with(
        "dermatology", convergence={"runs": ["serial_1gpu_efficientnet_b3"]}
    )
    assert "serial_1gpu_efficientnet_b3" in config_with_run.convergence_runs("dermatology")


def test_points_read_the_index_and_the_shards_of_their_study() -> None:
    graph = Graph({"studies": {"glaucoma": {"sweep": SWEEP}}})
    point = SimpleNamespace(study="glaucoma_lr_0_001_scaling_sqrt", run="ddp_4gpu")
    job = SimpleNamespace(study="glaucoma", run="ddp_4gpu")
    runs = Runs(graph)
    assert runs.shards(point) == runs.shards(job) == "data/glaucoma/shards"
    assert runs.index(point) == "data/glaucoma/index.parquet"
    # A sweep must not make the shards of its study again.
    siblings = Datasets(graph).sibling_options(SimpleNamespace(study="glaucoma", shards="shards"))
    assert siblings == "--beside data/glaucoma_published/shards"
    assert not [path for path in graph.results() if "_lr_" in path]  # tested on demand
    assert point.study in graph.trained


def test_the_origin_of_a_point_is_its_study() -> None:
    layer = Layer("mine.yaml", {"studies": {"glaucoma": {"sweep": SWEEP}}})
    (lr,) = [
        s
        for s in in_force(BASE, [layer], "glaucoma_lr_0_002_scaling_sqrt")
        if s.name.endswith("recipe.lr")
    ]
    assert lr.origin == "made from studies.glaucoma"


@pytest.mark.parametrize(
    ("study", "settings", "message"),
    [
        ("glaucoma", {"sweep": {"runs": ["ddp_2gpu"], "lr": None, "lr_scaling": None}}, "give val"),
        ("glaucoma", {"sweep": {**SWEEP, "lr": [0]}}, r"sweep\.lr\.0: .*greater than 0"),
        ("glaucoma", {"sweep": {**SWEEP, "runs": ["ddp_2tpu"]}}, "sweep.runs: 'ddp_2tpu' is no"),
        ("pneumonia", {"sweep": {**SWEEP, "runs": ["serial_1gpu_yolov8n"]}}, "is a detector"),
        ("glaucoma_published", {"sweep": SWEEP}, "a variant has no section"),
        ("glaucoma", {"convergence": {"metric": "val_auroc"}}, "metric: .*'val_loss'"),
        ("glaucoma", {"convergence": {"runs": ["ddp_2tpu"]}}, "convergence.runs: 'ddp_2tpu' is no"),
        ("pneumonia", {"convergence": {"runs": ["serial_1gpu_yolov8n"]}}, "is a detector"),
        ("glaucoma", {"convergence": {"seeds": [1, 1]}}, "has duplicates"),
    ],
)
def test_wrong_sweeps_and_comparisons_are_refused(
    study: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(MedscaleError, match=message):
        config_with(study, **settings)
