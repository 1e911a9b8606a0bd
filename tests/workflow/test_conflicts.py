"""Settings that no training could carry out are refused before any job starts."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config.configuration import load
from medscale.engine.models import registry
from medscale.engine.models.names import own_options
from medscale.engine.plan import Model
from medscale.engine.resolve import resolve
from medscale.workflow import preflight
from medscale.workflow.graph import Graph
from medscale.workflow.plans import plan
from medscale.workflow.preflight import examine
from medscale.workflow.runs import Runs
from medscale.workflow.stages import RECORDS, record_code
from snakemake_command import snakemake

BASE = Path(__file__).parents[2] / "config.yaml"


def changes(study: str, settings: dict[str, Any], scale: str = "demo") -> dict[str, Any]:
    return {"scale": scale, "only": [study], "studies": {study: settings}}


@pytest.mark.parametrize(
    ("settings", "run", "message"),
    [
        (
            {"model": {"options": {"widht": 8}}},
            "serial_1cpu",
            r"widht; did you mean 'width'\? it h",
        ),
        ({"model": {"options": {"width": "big"}}}, "serial_1cpu", "width is 'big', but must be"),
        ({"model": {"options": {"width": "auto"}}}, "serial_1cpu", "must be a whole number"),
        ({"model": {"options": {"dropout": True}}}, "serial_1cpu", "must be a number or auto"),
        ({"recipe": {"accumulate": 17}}, "ddp_2cpu", "share of a batch has 16 images: lower it"),
        ({"model": {"pretrained": "hub"}}, "serial_1cpu", "has no weights on the hub"),
        ({}, "serial_1cpu_xray_cnn", "size is 128, but the images have 64 pixels a side: set"),
        ({"augment": {"crop": {"size": 32}}}, "serial_1cpu_xray_cnn", "images have 32 pixels"),
        ({"recipe": {"batch_size": 2}}, "ddp_4cpu", "4 replicas cannot share a global batch of 2"),
        ({"model": {"trained": "last_layer"}}, "mp_2cpu", "a pipeline .mp. trains the whole"),
        ({"model": {"metadata": ["age"]}}, "ddp_mp_4cpu", "a pipeline .mp. trains the whole"),
        ({"recipe": {"sync_batchnorm": True}}, "ddp_2cpu", "sync_batchnorm needs GPUs"),
        ({"recipe": {"sync_batchnorm": True}}, "ddp_mp_4cpu", "not with a pipeline"),
        ({"recipe": {"half": "fp16"}}, "ddp_amp_2gpu", "fp16 is for GPUs; on a CPU it is bf16"),
    ],
)
def test_a_run_that_no_training_could_carry_out_is_refused(settings, run, message):
    with pytest.raises(MedscaleError, match=message):
        plan(load(BASE, changes("glaucoma", settings)), "glaucoma", run, 1)


XRAY = {"models": {"xray_cnn": {"name": "xray_cnn", "options": {"size": None}}}}


@pytest.mark.parametrize(
    ("settings", "run"),
    [
        ({"recipe": {"sync_batchnorm": True, "half": "fp16"}}, "serial_1cpu"),
        ({"recipe": {"batch_size": 4}}, "ddp_4cpu"),
        ({"recipe": {"accumulate": 16}}, "ddp_2cpu"),
        ({"model": {"options": {"dropout": "auto"}}}, "serial_1cpu"),
        ({"preprocess": {"size": 128}}, "serial_1cpu_xray_cnn"),
        (XRAY, "serial_1cpu_xray_cnn"),
    ],
)
def test_a_possible_run_is_planned(settings, run):
    assert plan(load(BASE, changes("glaucoma", settings)), "glaucoma", run, 1).run.name == run


@pytest.mark.parametrize("name", registry.OWN)
def test_the_options_in_the_source_are_those_of_the_class(name):
    parameters = inspect.signature(registry.OWN[name]).parameters.values()
    keywords = {p.name: (p.default, p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert own_options(name) == keywords
    assert all(option.is_valid(option.default) for option in own_options(name).values())


@pytest.mark.parametrize(
    ("model", "side", "message"),
    [
        ({"name": "vit_tiny_patch16_224"}, 96, "does not take images of 96 x 96 pixels"),
        ({"name": "vgg11"}, 16, "does not take images of 16 x 16 pixels"),
        ({"name": "resnet18", "options": {"widht": 3}}, 64, "widht.*it has .*stem_width"),
        ({"name": "medical_cnn", "options": {"width": 2}}, 64, "width is at least 4"),
        ({"name": "medical_cnn", "options": {"dropout": 1.5}}, 64, "dropout in "),
        ({"name": "medical_cnn", "options": {"dropout": "auto"}}, 64, None),
        ({"name": "vit_tiny_patch16_224", "options": {"img_size": 96}}, 96, None),
        ({"name": "vgg11", "trained": "last_layer"}, 64, "cannot be cut into stages"),
        ({"name": "resnet18"}, 20, None),
        ({"name": "resnet18", "trained": "last_layer"}, 20, None),
    ],
)
def test_a_network_is_tried_at_the_size_of_the_images(model, side, message):
    if message is None:
        registry.check(Model(**model), side)
        return
    with pytest.raises(MedscaleError, match=message):
        registry.check(Model(**model), side)


def test_check_names_each_impossible_network_and_run(tmp_path):
    settings = {"model": {"options": {"widht": 3}}, "runs": ["serial_1cpu", "ddp_64cpu"]}
    graph = Graph(changes("skin", settings) | {"workdir": str(tmp_path)})
    texts = [finding.text for finding in examine(graph) if finding.level == "error"]
    assert [text[:60] for text in texts if "ddp_64cpu" in text or "widht" in text] == [
        "ddp_64cpu: 64 replicas cannot share a global batch of 32; ra",
        "test_efficientnet: its options {'widht': 3} are not possible",
    ]


def test_check_goes_on_where_no_run_is_possible(tmp_path):
    settings = {"model": {"options": {"width": "big"}}}
    graph = Graph(changes("glaucoma", settings) | {"workdir": str(tmp_path)})
    for on_cluster in (False, True):
        texts = [finding.text for finding in examine(graph, on_cluster=on_cluster)]
        assert sum("its option width is 'big'" in text for text in texts) == 2  # and the variant's


def test_options_of_timm_are_checked_before_the_first_job(tmp_path, capsys):
    settings = {"model": {"options": {"widht": 3}}}
    graph = Graph(changes("skin", settings) | {"workdir": str(tmp_path)})
    names = SimpleNamespace(study="skin", run="serial_1gpu", replicate="seed1")
    job = SimpleNamespace(rule=SimpleNamespace(name="train"), wildcards=names)
    workflow = SimpleNamespace(dag=SimpleNamespace(needrun_jobs=lambda: [job]))
    with pytest.raises(SystemExit):
        Runs(graph).refuse_networks(workflow)
    assert "its options {'widht': 3} are not possible" in capsys.readouterr().err


def test_snakemake_names_the_option_without_a_traceback_and_without_pytorch(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("studies: {glaucoma: {model: {options: {widht: 8}}}}\n")
    target = "runs/glaucoma/ddp_2cpu/seed1/history.csv"
    process = snakemake("-n", target, "--configfile", str(file), "--config", "scale=demo")
    assert process.returncode != 0
    assert "network of glaucoma: medical_cnn: unknown option widht; did you mean" in process.stderr
    process = snakemake("-n", "--configfile", str(file), "--config", "scale=demo", "only=glaucoma")
    assert process.returncode != 0
    assert process.stderr.count("unknown option widht") == 1
    assert "Traceback" not in process.stderr


def test_an_impossible_run_stops_no_other_and_every_training_has_a_record_of_its_code(tmp_path):
    graph = Graph(changes("skin", {"runs": ["serial_1cpu", "ddp_64cpu"]}))
    graph.config = graph.config.model_copy(update={"workdir": tmp_path})
    wildcards = SimpleNamespace(study="skin", run="fsdp_2gpu")  # not among the study's runs
    record_code(
        [], graph, [SimpleNamespace(rule=SimpleNamespace(name="train"), wildcards=wildcards)]
    )
    record = tmp_path / RECORDS / f"{Runs(graph).train_code(wildcards)}.json"
    assert "medscale.engine.parallel.strategies.fsdp" in read_json(record)


def test_an_impossible_run_of_a_benchmark_is_one_message(capsys):
    settings = {"benchmarks": {"formats": {"run": "ddp_64cpu"}}}
    graph = Graph(changes("glaucoma", settings))
    message = "64 replicas cannot share a global batch of 32"
    with pytest.raises(SystemExit):
        Runs(graph).formats_plan(SimpleNamespace(study="glaucoma"))
    assert message in capsys.readouterr().err
    [fault] = preflight._plans(graph)[1]  # `medscale check` says so before
    assert (fault.level, fault.subject, message in fault.text) == (
        "error",
        "runs of glaucoma",
        True,
    )
    [fault] = preflight._plans(
        Graph(
            changes("glaucoma", {"profile": {"runs": ["ddp_8gpu"]}, "runs": ["ddp_16gpu"]}, "full")
        )
    )[1]
    assert fault.text.startswith(
        "profiled/glaucoma/ddp_8gpu: a run over 2 nodes cannot be profiled"
    )
    assert preflight._plans(Graph({}))[1] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": {"warmup_epochs": 9}}, r"warmup_epochs is 9, .* after 8 \(recipe.epochs\)"),
        ({"recipe": {"warmup_epochs": 5}}, r"after 4 \(benchmarks.formats.epochs\)"),
        (
            {"classes": ["normal", "glaucoma"], "evaluate": {"prevalence": {"glaucom": 0.1}}},
            "prevalence names 'glaucom'; state the prevalence of: glaucoma",
        ),
    ],
)
def test_settings_of_a_study_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(MedscaleError, match=message):
        load(BASE, changes("glaucoma", settings))


@pytest.mark.parametrize("setting", ["external", "convergence"])
def test_a_variant_has_nothing_that_only_a_section_of_the_paper_shows(setting):
    value: dict[str, Any] = {
        "external": [{"title": "x", "source": {"kind": "folder"}}],
        "convergence": {"runs": ["serial_1cpu"]},
    }
    with pytest.raises(MedscaleError, match=f"a variant has no section .* give {setting} to skin"):
        load(BASE, {"studies": {"skin_random": {setting: value[setting]}}})


def test_fewer_steps_than_the_warm_up_are_refused_when_the_images_are_known():
    steps = {"recipe": {"steps": 4, "warmup_epochs": 2.5}}
    planned = plan(load(BASE, changes("glaucoma", steps)), "glaucoma", "serial_1cpu", 1)
    assert resolve(planned, np.array([16, 16]), 64, torch.device("cpu")).recipe.epochs == 4
    with pytest.raises(MedscaleError, match="4 steps of 64 training images are 2 epochs"):
        resolve(planned, np.array([32, 32]), 64, torch.device("cpu"))
