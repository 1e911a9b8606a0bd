"""An optimizer step in a number format, and a record of what it copies between host and card."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medscale.data.loader import Batch
from medscale.engine.models.freeze import freeze
from medscale.engine.models.metadata import WithMetadata
from medscale.engine.train.ema import Average
from medscale.engine.train.recipe import CrossEntropy
from medscale.engine.train.step import OptimizerStep
from small_training import small_network

FEATURES = 3  # metadata of an image, in a network that takes some
# Number format, settings of the recipe, and of the network: its trained part, and its metadata.
STEPS = pytest.mark.parametrize(
    ("number_format", "settings", "trained", "features"),
    [
        ("fp32", {"optimizer": "adam", "clip_norm": None}, "all", 0),
        (
            "bf16",
            {"optimizer": "adamw", "class_weights": True, "label_smoothing": 0.1},
            "last_block",
            FEATURES,
        ),
        ("fp16", {"optimizer": "sgd", "ema": 0.9}, "all", FEATURES),
        ("fp16", {"optimizer": "adam", "ema": 0.9, "clip_norm": None}, "last_layer", 0),
    ],
)


def network_of(trained, features):
    """Return a network of two classes, of which a part is trained; with metadata if it has some."""
    network = small_network()
    if trained != "all":
        freeze(list(network.named_children()), trained)
    return WithMetadata(network, features, 2) if features else network


def step_of(model, rated, recipe, features=0):
    """Return the optimizer step of a model with two classes, and two batches of four images."""
    step = OptimizerStep(
        model,
        rated,
        Average(model.network, recipe.ema),
        model.precision,
        CrossEntropy(recipe, np.array([1, 2]), model.world.device),
        recipe.clip_norm,
    )
    with model.world.device:
        labels = torch.zeros(4, dtype=torch.int64)
        metadata = torch.zeros(4, features) if features else None
        return step, [Batch(torch.zeros(4, 3, 32, 32), labels, labels, metadata)] * 2


AHEAD = "a copy that the host does not wait for"


class Crossings(TorchDispatchMode):
    """Names of operators that have tensors both of the host and of a GPU; fused kernels do not run.

    A copy from one to the other is such an operator.
    """

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        is_fused = any(part in str(function) for part in ("_fused_", "_amp_update_scale_"))
        result = None if is_fused else function(*arguments, **(options or {}))
        tensors = [t for t in tree_leaves((arguments, options, result)) if torch.is_tensor(t)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            is_ahead = (options or {}).get("non_blocking")
            self.names.append(AHEAD if is_ahead else str(function))
        return result
