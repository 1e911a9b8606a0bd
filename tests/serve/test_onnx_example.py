"""examples/predict_onnx.py predicts what medscale predicts, with ONNX Runtime and NumPy alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medscale
from medscale.base.code import ROOT
from medscale.base.files import read_json, write_json
from medscale.serve.bundle import INFERENCE
from medscale.serve.export_command import export
from medscale.serve.predict import Predictor
from service_process import CLASSES, make_result

EXAMPLE = ROOT / "examples" / "predict_onnx.py"
# Runs the example, and fails if it imports a package that onnxruntime does not bring.
ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
before = set(sys.modules)
runpy.run_path(sys.argv[0], run_name="__main__")
packages = {name.partition(".")[0] for name in set(sys.modules) - before}
foreign = packages - set(sys.stdlib_module_names) - {"numpy", "onnxruntime"}
assert not foreign, foreign
"""
STEPS = {
    "cover": {"fit": "cover", "margin": 1.5},
    "all": {"clahe": {"clip_limit": 2.0, "tiles": 4}, "gamma": 1.2, "median": 3},
}


def exported(folder: Path, steps: dict[str, object]) -> Predictor:
    """Export a result whose images are preprocessed by these steps as network.onnx."""
    result = make_result(folder / "made" / "serial_1cpu", "serial_1cpu", CLASSES, 1, [], 1.5)
    record = read_json(result / INFERENCE)
    record["preprocess"] |= steps
    write_json(result / INFERENCE, record)
    predictor = medscale.load(result, device="cpu")
    export(predictor, "onnx", folder / "network.onnx", None)
    return predictor


def test_the_example_is_short() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 30


@pytest.mark.parametrize(("name", "mode"), [("x.jpg", "RGB"), ("x.png", "P"), ("y.png", "RGBA")])
def test_the_example_says_which_images_it_reads(name: str, mode: str, tmp_path: Path) -> None:
    exported(tmp_path, STEPS["all"])
    Image.new(mode, (30, 20)).save(tmp_path / name)
    command = [sys.executable, EXAMPLE, tmp_path / "network.onnx", tmp_path / name]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith(f"{tmp_path / name} is no PNG of 8 bits, grey or RGB, with")
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("steps", STEPS)
def test_the_example_predicts_what_medscale_predicts(steps: str, tmp_path: Path) -> None:
    predictor = exported(tmp_path, STEPS[steps])
    rng = np.random.default_rng(0)
    # One image for each way of resizing: by areas, linearly, by a whole factor, enlarged, grey.
    for name, sides in {
        "areas": (640, 128),
        "linear": (150, 140),
        "factor": (900, 700),
        "small": (60, 50),
        "grey": (300, 260),
    }.items():
        grid = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        path = tmp_path / f"{name}.png"
        image = grid.resize(sides, Image.Resampling.BICUBIC)
        image.convert("L" if name == "grey" else "RGB").save(path)
        command = [sys.executable, "-I", "-c", ALONE, EXAMPLE, tmp_path / "network.onnx", path]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        prediction = predictor.predict(path)
        assert prediction.calibration == "temperature"
        expected = prediction.probabilities
        printed = json.loads(process.stdout)
        assert list(printed) == list(expected)
        np.testing.assert_allclose(list(printed.values()), list(expected.values()), atol=1e-4)
