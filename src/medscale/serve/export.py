"""Trained networks as ONNX files in 32 bit: preprocessing, cropping, normalization inside."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError
from medscale.data.augment import MEAN, STD
from medscale.data.settings import Preprocess
from medscale.serve.formats.format import (
    BOXES,
    FEATURES,
    PIXELS,
    PROBABILITIES,
    description,
    quiet,
    save,
)
from medscale.serve.predict import Predictor

OPSET = 20
LARGEST_BATCH = 4096  # images; the exporter needs an upper bound


class Exportable(nn.Module):
    """Networks with every step after preprocessing: crop, normalization, softmax, mean.

    Args:
        predictor: the loaded run.
        calibrated: as of ``Predictor.predict``.

    Input: preprocessed images as uint8, shape n,size,size,3 (RGB), and features (float32, n,F)
    for networks that take metadata. Output: probabilities (float32, n,K), the mean over
    replicates, calibrated by their temperatures if there are any; of a detector corners (n,A,4:
    left, top, right, bottom as shares of the image's sides) and confidences (n,A) of all
    candidates, before non-maximum suppression.
    """

    def __init__(self, predictor: Predictor, calibrated: bool = True) -> None:
        super().__init__()
        self.temperatures = predictor.temperatures(calibrated).tolist()
        record = predictor.inference
        self.networks = nn.ModuleList(predictor.networks)
        self.size = record.preprocess.size
        self.crop = record.crop.size if record.crop else self.size
        self.head = predictor.head if record.task == "detection" else None
        mean, std = (
            255 * torch.tensor(v, device=predictor.device).view(1, 3, 1, 1) for v in (MEAN, STD)
        )
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.eval()

    def forward(
        self, pixels: Tensor, features: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return probabilities, or a detector's candidates; see the class."""
        start = self.size // 2 - self.crop // 2
        middle = pixels[:, start : start + self.crop, start : start + self.crop]
        images = (middle.permute(0, 3, 1, 2).float() - self.mean) / self.std
        inputs = images if features is None else (images, features)
        if self.head is not None:
            return self.head.decode(self.networks[0](inputs))
        pairs = zip(self.networks, self.temperatures, strict=True)
        return torch.stack([torch.softmax(net(inputs) / t, 1) for net, t in pairs]).mean(0)


def to_onnx(predictor: Predictor, path: Path, calibrated: bool = True) -> None:
    """Write the loaded networks as one ONNX file in 32 bit, for any number of images at once.

    ``calibrated`` as of ``Predictor.predict``.
    Raises MedscaleError when PyTorch's exporter cannot export the network.
    """
    record, device = predictor.inference, predictor.device
    size = record.preprocess.size
    count = torch.export.Dim("images", min=1, max=LARGEST_BATCH)
    inputs = {PIXELS: torch.zeros(2, size, size, 3, dtype=torch.uint8, device=device)}
    if record.metadata:
        width = sum(encoding.features for encoding in record.metadata)
        inputs[FEATURES] = torch.zeros(2, width, device=device)
    with quiet():
        try:
            program = torch.onnx.export(
                Exportable(predictor, calibrated),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(BOXES) if record.task == "detection" else [PROBABILITIES],
                dynamic_shapes={name: {0: count} for name in inputs},
                verbose=False,
            )
        except Exception as error:  # the exporter's errors have no common base class
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise MedscaleError(
                f"{record.model.name} cannot be exported to ONNX: {reason}"
            ) from error
        assert program is not None
        save(program.model_proto, path, _description(predictor, calibrated))


def include_preprocessing(path: Path, settings: Preprocess) -> None:
    """Let an ONNX file take decoded images of any size, in place of preprocessed ones.

    Raises MedscaleError for a median filter that needs too much memory.
    """
    import onnx

    from medscale.serve.onnx_preprocess import add_preprocessing

    model = onnx.load(path)
    record = json.loads(description(model))
    record["input"] = (
        "images: uint8, n,height,width,channels (1: grey, 3: RGB), decoded, of any size;"
        " `preprocess`, crop and normalization are inside"
    )
    add_preprocessing(model, settings)
    save(model, path, json.dumps(record, sort_keys=True))


def _description(predictor: Predictor, calibrated: bool) -> str:
    """Return JSON on preprocessing, classes and origin of the networks, kept inside the file."""
    record = predictor.inference.model_dump(
        mode="json", exclude={"replicates", "chosen", "judged_by"}
    )
    record["seeds"] = [weights.seed for weights in predictor.weights]
    if predictor.inference.folds:
        record["folds"] = [weights.fold for weights in predictor.weights]
    record["temperatures"] = [weights.temperature for weights in predictor.weights]
    record["calibration"] = predictor.calibration(calibrated)
    record["thresholds"] = [weights.threshold for weights in predictor.weights]
    record["input"] = (
        "pixels: uint8 RGB, n,size,size,3, preprocessed as `preprocess` says; crop and"
        " normalization are inside"
    )
    return json.dumps(record, sort_keys=True)
