"""Export formats: one declaration serves configuration, command line, benchmarks and figures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.config.configuration import load
from medscale.measure import exporting, inference
from medscale.report.names import LOOKS
from medscale.report.ways import WAYS as LOOK
from medscale.serve.export_command import _largest
from medscale.serve.formats.registry import BENCHMARKED, FORMATS, MODULES, by_name


def test_declarations_are_read_without_onnx_and_pytorch() -> None:
    code = "import sys, medscale.serve.formats.registry; print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"onnx", "onnxruntime", "torch", "numpy"} & set(process.stdout.split())


def test_each_format_has_a_module_of_its_name_and_a_look_of_its_own() -> None:
    assert [module.rpartition(".")[2] for module in MODULES] == list(FORMATS)
    assert len(FORMATS) == len(MODULES)
    assert len(set(LOOK.values())) == len(LOOK) <= len(LOOKS)


def test_benchmarks_and_figures_have_each_format() -> None:
    for name in BENCHMARKED:
        assert name in exporting.WAYS
        assert name in inference.WAYS
        assert name in LOOK


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(MedscaleError, match="there are onnx, fp16, int8, tensorrt"):
        by_name("fp8")
    for section, message in (
        ({"export": {"runs": ["serial_1cpu"], "formats": ["fp8"]}}, "export.formats: 'fp8'"),
        # TensorRT is measured as a device.
        ({"export": {"runs": ["serial_1cpu"], "formats": ["tensorrt"]}}, "'tensorrt' is unknown"),
        (
            {"export": {"runs": ["serial_1cpu"]}, "inference": {"ways": ["eager", "fp8"]}},
            "inference.ways: 'fp8'",
        ),
    ):
        with pytest.raises(MedscaleError, match=message):
            load(ROOT / "config.yaml", {"studies": {"glaucoma": {"benchmarks": section}}})


def test_outputs_beyond_the_tolerance_or_not_finite_are_refused() -> None:
    fp16 = FORMATS["fp16"]
    strict = replace(fp16, tolerance=0.1)
    strict.check(0.1, "x.onnx")
    fp16.check(0.9, "x.onnx")  # has no tolerance
    with pytest.raises(MedscaleError, match=r"x.onnx differ from PyTorch's by up to"):
        strict.check(0.2, "x.onnx")
    # The class of a NaN would be the first.
    outputs = [np.zeros(3), np.array([0.5, np.nan])]
    difference = _largest([torch.zeros(3), torch.zeros(2)], outputs)
    for form in (strict, fp16):
        with pytest.raises(MedscaleError, match=r"x.onnx are not finite for some image"):
            form.check(difference, "x.onnx")


def test_the_file_in_32_bit_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(MedscaleError, match="nothing is converted"):
        FORMATS["onnx"].write(tmp_path / "a.onnx", tmp_path / "b.onnx")
