"""Exports agree with PyTorch, describe themselves, and are measured on the test images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import medscale
from data_trees import image_bytes, picture
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_json, write_parquet
from medscale.cli import main as cli
from medscale.config.benchmarks import Export, Latency
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data import metadata
from medscale.data.prepare import prepare
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards, seal, write_chunk
from medscale.engine.models.registry import build
from medscale.evaluate.assessment import RESAMPLES as OF_RUNS
from medscale.evaluate.assessment import SEED as SEED_OF_RUNS
from medscale.measure import exporting, inference
from medscale.measure.record import Marks
from medscale.measure.scaling.benchmarks import by_format, by_inference
from medscale.serve import bundle, export, runtime
from medscale.serve.export_command import _random_colours, default_name
from medscale.serve.export_command import export as write_file
from medscale.serve.formats.format import description, inputs_of
from medscale.serve.formats.registry import FORMATS
from training_runs import ROOT

SIZE, COUNT = 40, 36
SETTINGS = Preprocess(size=SIZE)
STUDY = {
    "model": {"name": "tiny_cnn", "options": {"width": 8}, "metadata": ["age"]},
    "augment": {"crop": {"size": 32}},
    "preprocess": {"size": SIZE},
}


def described(file: Path) -> dict[str, object]:
    """Return the description inside an exported file."""
    return json.loads(description(onnx.load(file)))


@pytest.fixture(scope="module")
def exported_study(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Raw files, index, shards and the result folder of a network that was never trained."""
    folder = tmp_path_factory.mktemp("export")
    raw, shards, run, result = (
        folder / name for name in ("raw", "shards", "seed1", "results/serial_1cpu")
    )
    for folder_path in (raw, shards, run, result):
        folder_path.mkdir(parents=True)
    paths = [raw / f"{number}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        path.write_bytes(image_bytes(picture(number, (60, 50))))
    write_chunk(
        shards, 0, np.stack([prepare(path.read_bytes(), SETTINGS).pixels for path in paths])
    )
    split = np.repeat(["train", "val", "test"], COUNT // 3)
    rows = pd.DataFrame({"id": range(COUNT), "label": np.arange(COUNT) % 3, "split": split})
    rows["group"], rows["age"] = (
        [f"g{number // 2}" for number in range(COUNT)],
        np.linspace(20, 80, COUNT),
    )
    seal(
        shards,
        rows,
        ["a", "b", "c"],
        {"preprocess": SETTINGS.model_dump(mode="json"), "versions": {}},
    )
    index = rows.assign(
        label=pd.Categorical.from_codes(rows["label"], categories=["a", "b", "c"]),
        path=[path.name for path in paths],
        sha256=[sha256(path) for path in paths],
        width=60,
        height=50,
    )
    write_parquet(folder / "index.parquet", index)
    run_plan = plan(
        load(ROOT / "config.yaml", {"studies": {"glaucoma": STUDY}}), "glaucoma", "serial_1cpu", 1
    )
    torch.manual_seed(0)
    network = build(run_plan.model, 3, 3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    save_file(network.state_dict(), run / "model.safetensors")
    history = pd.DataFrame({"val_loss": [1.0]})
    replicate = SimpleNamespace(plan=run_plan, folder=run, history=history)
    marks = Marks(synthetic=True, stand_in=False, scale="demo")
    bundle.put([replicate], Shards.open(shards), result, {"marks": marks.model_dump()})
    opened, predictor = Shards.open(shards), medscale.load(result, device="cpu")
    features = metadata.apply(predictor.inference.metadata, opened.rows)
    pixels = opened.gather(np.arange(COUNT))
    export.to_onnx(predictor, folder / "whole.onnx")
    return SimpleNamespace(
        **{
            "folder": folder,
            "raw": raw,
            "shards": shards,
            "result": result,
            "predictor": predictor,
        },
        **{"pixels": pixels, "features": features, "whole": folder / "whole.onnx"},
    )


def test_a_file_says_what_the_predictor_says_for_any_number_of_images(exported_study) -> None:
    expected = exported_study.predictor.probabilities(
        exported_study.pixels, exported_study.features
    )
    assert np.ptp(expected, axis=0).max() > 0.1, "the network says the same of every image"
    for count in (1, 5, COUNT):
        probabilities = runtime.onnx(exported_study.whole)(
            exported_study.pixels[:count], exported_study.features[:count]
        )
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-5)
        eager = runtime.pytorch(exported_study.predictor)(
            exported_study.pixels[:count], exported_study.features[:count]
        )
        np.testing.assert_allclose(eager, expected[:count], atol=1e-5)
    about = described(exported_study.whole)
    assert about["preprocess"]["size"] == SIZE
    assert about["classes"] == ["a", "b", "c"]
    assert about["metadata"][0]["column"] == "age"
    assert about["seeds"] == [1]


def test_half_and_int8_are_smaller_near_and_say_the_same_of_themselves(
    exported_study, tmp_path: Path
) -> None:
    expected = runtime.onnx(exported_study.whole)(exported_study.pixels, exported_study.features)
    inputs = inputs_of(exported_study.pixels, exported_study.features)
    FORMATS["fp16"].write(exported_study.whole, tmp_path / "fp16.onnx")
    FORMATS["int8"].write(exported_study.whole, tmp_path / "int8.onnx", inputs)
    for name, near in (("fp16", 5e-3), ("int8", 0.1)):
        file = tmp_path / f"{name}.onnx"
        distance = np.abs(
            runtime.onnx(file)(exported_study.pixels, exported_study.features) - expected
        ).max()
        assert 0 < distance < near, name
        assert described(file) == described(exported_study.whole)
    weights = (tmp_path / "int8.onnx").read_bytes()
    assert b"QuantizeLinear" in weights
    with pytest.raises(MedscaleError, match="needs images to calibrate on"):
        FORMATS["int8"].write(
            exported_study.whole,
            tmp_path / "none.onnx",
            {name: array[:0] for name, array in inputs.items()},
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp16.onnx", "int8.onnx"]


def test_an_unavailable_runtime_is_reported(exported_study, tmp_path: Path) -> None:
    if runtime.absent("cuda") is None:
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(MedscaleError, match=r"on cuda: .*install onnxruntime-gpu"):
        runtime.onnx(exported_study.whole, "cuda")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(MedscaleError, match="cannot be run by ONNX Runtime"):
        runtime.onnx(tmp_path / "x.onnx")


def test_images_without_a_folder_are_smooth_and_differ() -> None:
    """Of white noise, networks give probabilities of 0 and 1, whatever the file computes."""
    images = _random_colours(8, 40, 50).astype(float)
    assert images.shape == (8, 40, 50, 3)
    assert np.abs(np.diff(images, axis=2)).mean() < 5 < images.std(axis=(1, 2)).mean()
    assert images.mean(axis=(1, 2, 3)).std() > 20


def test_the_name_of_a_file_repeats_no_ending() -> None:
    names = [default_name("skin-serial_1gpu", to) for to in ("onnx", "fp16")]
    assert names == ["skin-serial_1gpu.onnx", "skin-serial_1gpu.fp16.onnx"]


def test_the_command_writes_one_checked_file(exported_study, tmp_path: Path) -> None:
    run = partial(CliRunner().invoke, cli.main)
    out, raw = tmp_path / "x.onnx", tmp_path / "raw"
    shutil.copytree(exported_study.raw, raw)
    (raw / "a.png").write_bytes(b"")
    invocation = run(
        [
            "export",
            str(exported_study.result),
            "--to",
            "int8",
            "--out",
            str(out),
            "--images",
            str(raw),
        ]
    )
    assert invocation.exit_code == 0, invocation.output
    assert "1 images cannot be read and are left out: a.png (zero bytes" in invocation.output
    assert f"of PyTorch's in 32 bit on {COUNT} images" in invocation.output
    assert {path.name for path in tmp_path.iterdir()} == {"x.onnx", "raw"}
    for bad_arguments, message in (
        (["--to", "int8"], "--images"),
        (["--to", "pt"], "there are onnx"),
        (["--to", "tensorrt"], ""),
    ):
        failed = run(["export", str(exported_study.result), *bad_arguments])
        assert isinstance(failed.exception, MedscaleError)
        assert message in str(failed.exception)


def test_a_run_with_amp_is_compared_with_what_medscale_predicts(
    exported_study, tmp_path: Path
) -> None:
    """The file computes in 32 bit, and ``medscale predict`` in bf16."""
    shutil.copytree(exported_study.result, tmp_path / "result")
    record = tmp_path / "result" / "inference.json"
    write_json(record, read_json(record) | {"amp": True})
    predictor = medscale.load(tmp_path / "result", device="cpu")
    written = write_file(predictor, "onnx", tmp_path / "x.onnx", exported_study.raw)
    assert written.medscale_format == "bf16"
    assert written.largest_difference < 1e-5
    assert 1e-5 < written.largest_difference_decoded < 0.1
    assert "of medscale's in bf16" in " ".join(written.lines())
    assert ("network: seed " in " ".join(written.lines())) == bool(written.replicates)


def test_exports_are_measured_in_pairs_on_the_test_images(
    exported_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda _, path: shutil.copy(exported_study.whole, path))
    settings = Export(runs=["serial_1cpu"], devices=["cpu", "tensorrt"], batch_size=5, repeats=2)
    rows, missing = exporting.measure_export(
        [exported_study.result], exported_study.shards, settings, tmp_path
    )
    assert list(rows.columns) == exporting.COLUMNS
    assert ("tensorrt" in missing) == (runtime.absent("tensorrt") is not None)
    cpu = rows[rows["device"] == "cpu"]
    assert cpu.groupby("format").size().to_dict() == dict.fromkeys(exporting.WAYS, 2)
    assert (rows["images"] == COUNT // 3).all()
    of = by_format(rows).set_index("format")
    expected = exported_study.predictor.probabilities(
        exported_study.pixels, exported_study.features
    )[-COUNT // 3 :].argmax(1)
    assert of["accuracy"]["eager"] == pytest.approx(
        100 * np.mean(expected == np.arange(24, COUNT) % 3)
    )
    assert (of.loc["eager", ["difference", "low", "high", "changed"]] == 0).all()
    assert of["difference"]["onnx"] == of["changed"]["onnx"] == 0
    assert of["low"]["onnx"] < 0 < of["high"]["onnx"]  # equal answers of few patients
    assert of["bytes"]["int8"] < of["bytes"]["onnx"]
    assert of["gain"]["eager"] == 1
    assert (exporting.RESAMPLES, exporting.SEED) == (OF_RUNS, SEED_OF_RUNS)
    for name in exporting.WAYS:
        assert (tmp_path / f"serial_1cpu.{name}.onnx").is_file() == (name != "eager")


def test_a_file_that_says_something_else_is_refused(
    exported_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda _, path: shutil.copy(exported_study.whole, path))
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], tolerance=-1.0))
    settings = Export(runs=["serial_1cpu"], formats=[], repeats=1)
    with pytest.raises(MedscaleError, match="differ from PyTorch's"):
        exporting.measure_export([exported_study.result], exported_study.shards, settings, tmp_path)


def test_each_way_is_timed_on_the_same_images(exported_study, tmp_path: Path) -> None:
    settings = Latency(
        ways=["eager", "onnx"], threads=[1, 0], batches=[1, 16], calls=20, images=6, repeats=2
    )
    before = torch.get_num_threads()
    files = tmp_path / "serial_1cpu.onnx.onnx"
    files.write_bytes(exported_study.whole.read_bytes())
    arguments = (
        [exported_study.result],
        tmp_path,
        exported_study.folder / "index.parquet",
        exported_study.raw,
    )
    rows, _ = inference.measure_inference(*arguments, settings)
    assert torch.get_num_threads() == before
    assert list(rows.columns) == inference.COLUMNS
    assert set(rows["way"]) == {"eager", "onnx", "decode"}
    latency = rows[rows["kind"] == "latency"]
    assert (latency["p50_ms"] <= latency["p95_ms"]).all()
    assert (latency["p95_ms"] <= latency["p99_ms"]).all()
    assert (rows["seconds"] > 0).all()
    table = by_inference(rows)
    assert (table.loc[table["way"] == "eager", "gain"] == 1).all()
    assert table.loc[table["way"] == "onnx", "gain"].notna().all()
    with pytest.raises(MedscaleError, match="add int8 to benchmarks"):
        inference.measure_inference(
            *arguments, settings.model_copy(update={"ways": ["eager", "int8"]})
        )
