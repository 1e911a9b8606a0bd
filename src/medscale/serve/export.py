"""Trained networks as ONNX files: 32 bit, 16 bit, and INT8 calibrated on images; cropping and normalization inside."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic
from medscale.data.augment import MEAN, STD
from medscale.serve.predict import Predictor

PIXELS, FEATURES, PROBABILITIES = "pixels", "features", "probabilities"
BOXES = ("corners", "confidence")
OPSET = 20
LARGEST = 4096  # images a batch
CALIBRATION_BATCH = 32
PROPERTY = "medscale"  # key of the metadata that a file carries
# What is computed in 8 bits. The last softmax is not: 256 steps would be too few for probabilities.
QUANTIZED = ["Conv", "MatMul", "Gemm", "Add", "Mul", "Concat", "Relu", "Clip", "Sigmoid"]
QUANTIZED += ["MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"]


class Exportable(nn.Module):
    """Networks with all that comes after preprocessing: crop, normalization, softmax, mean over replicates.

    Input: preprocessed images as uint8, shape n,size,size,3 (RGB), and features (float32, n,F) where there are
    metadata. Output: probabilities (float32, n,K); of a detector corners (n,A,4: left, top, right, bottom as shares of
    the image's sides) and confidences (n,A) of all candidates, before non-maximum suppression.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        record = predictor.inference
        self.networks = nn.ModuleList(predictor.networks)
        self.size, self.crop = (
            record.preprocess.size,
            record.crop.size if record.crop else record.preprocess.size,
        )
        self.head = predictor.head if record.task == "detection" else None
        mean, std = (
            255 * torch.tensor(v, device=predictor.device).view(1, 3, 1, 1) for v in (MEAN, STD)
        )
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.eval()

    def forward(
        self, pixels: Tensor, features: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See the class."""
        start = self.size // 2 - self.crop // 2
        seen = pixels[:, start : start + self.crop, start : start + self.crop].permute(0, 3, 1, 2)
        images = (seen.float() - self.mean) / self.std
        given = images if features is None else (images, features)
        if self.head is not None:
            return self.head.decode(self.networks[0](given))
        return torch.stack([torch.softmax(one(given), 1) for one in self.networks]).mean(0)


def to_onnx(predictor: Predictor, path: Path) -> None:
    """Write the networks in use as one ONNX file in 32 bit, for any number of images at once.

    Raises:
        MedscaleError: when PyTorch's exporter does not take the network.
    """
    module = Exportable(predictor)
    size = predictor.inference.preprocess.size
    count = torch.export.Dim("images", min=1, max=LARGEST)
    inputs: dict[str, Tensor] = {
        PIXELS: torch.zeros(2, size, size, 3, dtype=torch.uint8, device=predictor.device)
    }
    if predictor.inference.metadata:
        width = sum(one.features for one in predictor.inference.metadata)
        inputs[FEATURES] = torch.zeros(2, width, device=predictor.device)
    outputs = list(BOXES) if predictor.inference.task == "detection" else [PROBABILITIES]
    with _quietly():
        try:
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes={name: {0: count} for name in inputs},
                verbose=False,
            )
        except Exception as error:  # the exporter raises errors of several kinds
            reason = str(error).strip().splitlines()
            raise MedscaleError(
                f"{predictor.inference.model.name} cannot be exported to ONNX: {reason[0] if reason else error!r}"
            ) from error
    assert program is not None
    _write(program.model_proto, path, _about(predictor))


def to_half(source: Path, path: Path) -> None:
    """Write an ONNX file with its weights and computations in 16 bit; inputs and outputs stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    with _quietly():
        _write(convert_float_to_float16(model, keep_io_types=True), path, _carried(model))


def to_int8(source: Path, path: Path, inputs: dict[str, np.ndarray]) -> None:
    """Write an ONNX file quantized to 8 bits, weights a channel, activations by their range on calibration images.

    Static quantization as Jacob et al. (CVPR 2018) describe it, by ONNX Runtime, in its QDQ format.

    Args:
        source: the file in 32 bit.
        path: where to.
        inputs: by name of input, calibration images (and features): of the validation split, never of the test split.

    Raises:
        MedscaleError: when there are no images.
    """
    import onnx
    from onnxruntime import quantization as q

    if not len(inputs[PIXELS]):
        raise MedscaleError(
            "INT8 needs images to calibrate on; name some that the network was not tested on"
        )
    with tempfile.TemporaryDirectory(prefix="medscale-") as folder, _quietly():
        prepared, made = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        q.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        q.quantize_static(
            str(prepared),
            str(made),
            _Reader(inputs),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
        _write(onnx.load(made), path, _carried(onnx.load(source, load_external_data=False)))


class _Reader:
    """Calibration images in batches, as ONNX Runtime asks for them."""

    def __init__(self, inputs: dict[str, np.ndarray]) -> None:
        starts = range(0, len(inputs[PIXELS]), CALIBRATION_BATCH)
        self._batches = iter(
            [
                {n: v[start : start + CALIBRATION_BATCH] for n, v in inputs.items()}
                for start in starts
            ]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None."""
        return next(self._batches, None)


def _about(predictor: Predictor) -> str:
    """What a file says of itself: how its images are preprocessed, its classes, where it comes from."""
    record = predictor.inference.model_dump(
        mode="json", exclude={"replicates", "chosen", "judged_by"}
    )
    record["seeds"] = [one.seed for one in predictor.weights]
    record["temperatures"] = [one.temperature for one in predictor.weights]
    record["thresholds"] = [one.threshold for one in predictor.weights]
    record["input"] = (
        "uint8 RGB, n,size,size,3, preprocessed as `preprocess` says; crop and normalization are inside"
    )
    return json.dumps(record, sort_keys=True)


def _carried(model: Any) -> str:
    """What the file that another is made from says of itself."""
    return next(one.value for one in model.metadata_props if one.key == PROPERTY)


def _write(model: Any, path: Path, about: str) -> None:
    import onnx

    del model.metadata_props[:]
    model.metadata_props.add(key=PROPERTY, value=about)
    with atomic(path) as temporary:
        onnx.save(model, temporary)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings of exporter and quantizer, which speak of their own code."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for one in loggers:
                one.setLevel(logging.ERROR)
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)
