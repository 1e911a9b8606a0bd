"""ONNX quantized statically to 8 bits, as Jacob et al. (CVPR 2018) describe it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from medscale.serve.formats.format import PIXELS, Benchmarked, Format, Inputs

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATION_BATCH = 32
# Operators that compute in 8 bits. The final softmax stays in 32 bit: 256 steps are too coarse for
# probabilities.
QUANTIZED = ["Conv", "MatMul", "Gemm", "Add", "Mul", "Concat", "Relu", "Clip", "Sigmoid"]
QUANTIZED += ["MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"]


class Batches:
    """Calibration inputs in batches, in the interface of ONNX Runtime's CalibrationDataReader."""

    def __init__(self, inputs: Inputs) -> None:
        starts = range(0, len(inputs[PIXELS]), CALIBRATION_BATCH)
        self._batches = iter(
            [{n: v[at : at + CALIBRATION_BATCH] for n, v in inputs.items()} for at in starts]
        )

    def get_next(self) -> Inputs | None:
        """Return the next batch, or None after the last one."""
        return next(self._batches, None)


def convert(source: Path, inputs: Inputs) -> ModelProto:
    """Quantize by ONNX Runtime: weights by channel, activations by their range on ``inputs``."""
    import onnx
    from onnxruntime import quantization as q

    with tempfile.TemporaryDirectory(prefix="medscale-") as folder:
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        q.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        q.quantize_static(
            str(prepared),
            str(quantized),
            Batches(inputs),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
        return onnx.load(quantized)


FORMAT = Format(
    "int8",
    convert,
    calibrated=True,
    benchmarked=Benchmarked(
        title="ONNX, INT8",
        description="the same, quantized statically to 8 bits, calibrated on validation images",
        way="ONNX Runtime, INT8",
        way_description="the export quantized to 8 bits",
        look=4,
    ),
)
