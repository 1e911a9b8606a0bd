"""examples/predict_onnx.py predicts what medscale predicts, without medscale and PyTorch."""

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
from medscale.serve.export import to_onnx
from service_process import CLASSES, make_result

EXAMPLE = ROOT / "examples" / "predict_onnx.py"
# Runs the example where no module of medscale, PyTorch or Pillow can be imported.
ALONE = """
import runpy, sys
for name in ("medscale", "torch", "torchvision", "timm", "PIL", "pydicom", "onnx"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
STEPS = {
    "plain": {},
    "cover": {"fit": "cover", "margin": 1.5},
    "all": {"clahe": {"clip_limit": 2.0, "tiles": 4}, "gamma": 1.2, "median": 3},
}


def exported(folder: Path, steps: dict[str, object]) -> Path:
    """Write a result whose images are preprocessed by these steps; return its ONNX file."""
    result = make_result(folder / "made" / "serial_1cpu", "serial_1cpu", CLASSES, 1, [], None)
    record = read_json(result / INFERENCE)
    record["preprocess"] |= steps
    write_json(result / INFERENCE, record)
    to_onnx(medscale.load(result, device="cpu"), folder / "made.onnx")
    return result


def test_the_example_is_short() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 30


@pytest.mark.parametrize("steps", STEPS)
def test_the_example_predicts_what_medscale_predicts(steps: str, tmp_path: Path) -> None:
    result = exported(tmp_path, STEPS[steps])
    predictor = medscale.load(result, device="cpu")
    rng = np.random.default_rng(0)
    # One image for each way of resizing: by areas, linearly, shrunk within a JPEG, enlarged.
    for name, sides in {
        "a.png": (640, 128),
        "b.png": (150, 140),
        "c.jpg": (900, 700),
        "d.jpg": (60, 50),
    }.items():
        grid = rng.integers(0, 256, (8, 8, 3), np.uint8)
        path = tmp_path / name
        Image.fromarray(grid).resize(sides, Image.Resampling.BICUBIC).save(path)
        process = subprocess.run(
            [
                sys.executable,
                "-I",
                "-c",
                ALONE,
                str(EXAMPLE),
                str(tmp_path / "made.onnx"),
                str(path),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        expected = predictor.predict(path).probabilities
        printed = json.loads(process.stdout)
        assert list(printed) == list(expected)
        np.testing.assert_allclose(list(printed.values()), list(expected.values()), atol=1e-4)
