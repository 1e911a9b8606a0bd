"""A result folder's trained networks as PyTorch modules for inference."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from medscale.base.errors import MedscaleError
from medscale.base.files import sha256
from medscale.engine.models.registry import build, read_weights
from medscale.serve.bundle import Inference, Weights

CHANNELS = 3


def network(inference: Inference, folder: Path, weights: Weights) -> nn.Module:
    """Return one replicate's network on the CPU, in evaluation mode, with the recorded weights.

    Pretrained weights, from which training may have started, are neither needed nor read. Raises
    MedscaleError when the weights are missing, damaged or do not fit the network.
    """
    model = inference.model.model_copy(update={"pretrained": None, "trained": "all"})
    if inference.task == "detection":
        from medscale.engine.detect import yolo  # imports ultralytics, an optional package

        module: nn.Module = yolo.build(model)
    else:
        features = sum(encoding.features for encoding in inference.metadata)
        module = build(model, len(inference.classes), CHANNELS, features)
    _load_weights(module, folder / weights.file, weights.sha256)
    return module.eval().requires_grad_(False)


def _load_weights(module: nn.Module, path: Path, digest: str) -> None:
    if not path.is_file():
        raise MedscaleError(f"{path} is missing; copy the whole result folder")
    if sha256(path) != digest:
        raise MedscaleError(
            f"{path} is not the file that was trained (its SHA-256 differs); copy the folder again"
        )
    try:
        module.load_state_dict(read_weights(path), strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise MedscaleError(
            f"{path} does not fit the network that inference.json describes: {reason}"
        ) from None
