"""ONNX in 32 bit: the file that PyTorch's exporter writes and all other formats start from."""

from __future__ import annotations

from medscale.serve.formats.format import Benchmarked, Format

FORMAT = Format(
    "onnx",
    tolerance=1e-3,
    benchmarked=Benchmarked(
        title="ONNX, 32 bit",
        description="exported to ONNX, run by ONNX Runtime",
        way="ONNX Runtime",
        way_description="the export in 32 bit",
        look=2,
    ),
)
