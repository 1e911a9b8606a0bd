"""An engine of TensorRT, built next to the ONNX file in 32 bit for the GPU of this machine.

The benchmarks measure TensorRT as a device (``benchmarks.*.devices``), not as a format.
"""

from __future__ import annotations

from medscale.serve.formats.format import Format

FORMAT = Format("tensorrt", tolerance=1e-3, engine="tensorrt", preprocessed=True)
