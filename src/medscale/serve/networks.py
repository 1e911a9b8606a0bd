"""A result folder's trained networks as plain modules in evaluation, with exactly the recorded weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from medscale.base.errors import MedscaleError
from medscale.base.files import sha256
from medscale.engine.models.registry import build, read_weights
from medscale.serve.bundle import Inference, Weights

CHANNELS = 3


def network(inference: Inference, folder: Path, weights: Weights) -> nn.Module:
    """One replicate's network on the CPU, in evaluation; weights that it would start training from are not looked for.

    Raises:
        MedscaleError: when the weights are missing, damaged or do not fit the network.
    """
    model = inference.model.model_copy(update={"pretrained": None, "trained": "all"})
    if inference.task == "detection":
        from medscale.engine.detect import (
            yolo,
        )  # imports nothing of ultralytics before it builds a network

        module: nn.Module = yolo.build(model)
    else:
        features = sum(one.features for one in inference.metadata)
        module = build(model, len(inference.classes), CHANNELS, features)
    _fill(module, folder / weights.file, weights.sha256)
    return module.eval().requires_grad_(False)


def _fill(module: nn.Module, path: Path, digest: str) -> None:
    if not path.is_file():
        raise MedscaleError(f"{path} is missing; copy the whole result folder")
    if sha256(path) != digest:
        raise MedscaleError(
            f"{path} is not the file that was trained (its SHA-256 differs); copy the folder again"
        )
    given = read_weights(path)
    try:
        module.load_state_dict(given, strict=True)
    except RuntimeError as error:
        said = str(error).splitlines()
        raise MedscaleError(
            f"{path} does not fit the network that inference.json describes: {said[1].strip()}"
        ) from None
