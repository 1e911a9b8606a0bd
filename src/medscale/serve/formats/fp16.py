"""ONNX in 16 bit: weights and computations in half precision, inputs and outputs unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medscale.serve.formats.format import Benchmarked, Format, Inputs

if TYPE_CHECKING:
    from onnx import ModelProto


def convert(source: Path, inputs: Inputs) -> ModelProto:
    """Convert by ONNX Runtime's transformer tools."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half: ModelProto = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    return half


FORMAT = Format(
    "fp16",
    convert,
    benchmarked=Benchmarked(
        title="ONNX, 16 bit",
        description="the same with weights and computations in 16 bit",
        way="ONNX Runtime, 16 bit",
        way_description="the export in 16 bit",
        look=3,
    ),
)
