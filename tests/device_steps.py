"""Optimizer steps of many kinds on fake tensors, and a record of copies between host and card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medscale.data.loader import Batch
from medscale.engine.formats import FORMATS
from medscale.engine.models.freeze import freeze
from medscale.engine.models.metadata import WithMetadata
from medscale.engine.models.registry import build
from medscale.engine.parallel.apply import synchronized
from medscale.engine.plan import Model
from medscale.engine.run import is_detector
from medscale.engine.train.ema import Average
from medscale.engine.train.recipe import CrossEntropy
from medscale.engine.train.step import OptimizerStep
from small_training import alone, small_network

SMALL = "small"  # the network of small_training
IMAGES = 4  # of a micro-batch


@dataclass(frozen=True)
class Case:
    """What a step consists of."""

    number_format: str = "fp32"
    settings: dict[str, Any] = field(default_factory=dict)  # of the recipe
    network: str = SMALL  # or a name that a study can have
    options: dict[str, Any] = field(default_factory=dict)  # of the network
    trained: str = "all"
    features: int = 0  # metadata of an image
    replicas: int = 1
    synchronized: bool = False  # whether batch normalization is that of all replicas

    @property
    def side(self) -> int:
        """Pixels per side of an image."""
        return 32 if self.network == SMALL else 64


NETWORKS: dict[str, dict[str, Any]] = {
    "medical_cnn": {"width": 8, "dropout": 0.3},
    "xray_cnn": {"size": 64},
    "tiny_cnn": {},
    "test_resnet": {"drop_rate": 0.1},
    "test_efficientnet": {"drop_path_rate": 0.2},
    "densenet121": {"block_config": [2, 2], "growth_rate": 8, "proj_drop_rate": 0.1},
    "test_convnext": {},
    "test_vit": {"img_size": 64, "attn_drop_rate": 0.1},
    "yolov8n": {},
}
RECIPES: tuple[dict[str, Any], ...] = (
    {"optimizer": "adam", "clip_norm": None},
    {"optimizer": "adamw", "weight_decay": 0.01, "class_weights": True, "label_smoothing": 0.1},
    {"optimizer": "sgd", "ema": 0.9},
    {"optimizer": "adam", "ema": 0.9, "class_weights": True},
    {"optimizer": "sgd", "clip_norm": None, "label_smoothing": 0.1},
)
PARTS = [  # of a network: some are frozen, some take metadata
    Case("fp32", {"optimizer": "adam", "clip_norm": None}),
    Case(
        "bf16",
        {"optimizer": "adamw", "class_weights": True, "label_smoothing": 0.1},
        trained="last_block",
        features=3,
    ),
    Case("fp16", {"optimizer": "sgd", "ema": 0.9}, features=3),
    Case("fp16", {"optimizer": "adam", "ema": 0.9, "clip_norm": None}, trained="last_layer"),
]
# Each network on two replicas, which do all that one does. Formats, recipes, metadata and
# synchronization rotate.
FAMILIES = [
    Case(
        FORMATS[place % len(FORMATS)],
        RECIPES[place % len(RECIPES)],
        network,
        options,
        features=0 if is_detector(network) else 3 * (place % 3 == 1),
        replicas=2,
        synchronized=place % 2 == 0,
    )
    for place, (network, options) in enumerate(NETWORKS.items())
]
STEPS = pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=f"{case.network}-{case.number_format}-{case.trained}",
            marks=pytest.mark.skipif(
                is_detector(case.network) and find_spec("ultralytics") is None,
                reason="ultralytics (AGPL, optional) is not installed",
            ),
        )
        for case in PARTS + FAMILIES
    ],
)


@contextmanager
def world_of(device: torch.device, replicas: int) -> Iterator[Any]:
    """Yield the world of the first of some replicas, whose collectives do nothing."""
    if replicas == 1:
        yield alone(device)
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=replicas)
    try:
        yield SimpleNamespace(
            **vars(alone(device)) | {"size": replicas, "replicas": replicas},
            replica_group=dist.group.WORLD,
        )
    finally:
        dist.destroy_process_group()


def network_of(case: Case) -> nn.Module:
    """Return the network of a case for two classes, or for boxes, on the CPU."""
    if is_detector(case.network):
        from medscale.engine.detect import yolo

        return yolo.build(Model(name=case.network))
    if case.network != SMALL:
        model = Model(name=case.network, options=case.options, trained=case.trained)
        return build(model, 2, features=case.features)
    network = small_network()
    if case.trained != "all":
        freeze(list(network.named_children()), case.trained)
    return WithMetadata(network, case.features, 2) if case.features else network


def criterion_of(case: Case, network: nn.Module, recipe: Any) -> Any:
    """Return the loss of a case, on the CPU."""
    if is_detector(case.network):
        from medscale.engine.detect import yolo

        return yolo.BoxLoss(network, case.side)
    return CrossEntropy(recipe, np.array([1, 2]), torch.device("cpu"))


def faked(case: Case, recipe: Any, device: torch.device) -> tuple[nn.Module, Any]:
    """Return network and loss of a case on fake tensors of a device, within a FakeTensorMode."""
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        network = network_of(case)
        criterion = criterion_of(case, network, recipe)
    if case.synchronized and device.type == "cuda":  # which refuses the CPU
        network = synchronized(network, dist.group.WORLD)

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)

    for part in network.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(fake(weight), weight.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else fake(buffer)
    owners = [criterion, getattr(criterion, "_loss", None)]
    for owner in filter(None, owners):
        for name, value in vars(owner).items():
            if torch.is_tensor(value):
                setattr(owner, name, fake(value))
    return network, criterion


def step_of(model: Any, rated: Any, recipe: Any, case: Case | None = None, criterion: Any = None):
    """Return the optimizer step of a model, and two batches of images."""
    case, device = case or Case(), model.world.device
    if criterion is None:
        criterion = CrossEntropy(recipe, np.array([1, 2]), device)
    if is_detector(case.network):
        criterion._sum_over_replicas = model.sum_over_replicas
    step = OptimizerStep(
        model,
        rated,
        Average(model.network, recipe.ema),
        model.precision,
        criterion,
        recipe.clip_norm,
    )
    with device:
        boxes, classes = torch.zeros(IMAGES, 3, 4), torch.zeros(IMAGES, dtype=torch.int64)
        labels = boxes if is_detector(case.network) else classes
        metadata = torch.zeros(IMAGES, case.features) if case.features else None
        images = torch.zeros(IMAGES, 3, case.side, case.side)
    return step, [Batch(images, labels, labels, metadata)] * 2


# Operators whose result the host has to know; on a GPU it waits for them.
READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique")
AHEAD = "a copy that the host does not wait for"


def _statistics(images: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    mean = images.new_zeros(images.shape[1], dtype=torch.float32)
    return mean, mean.clone()


# Operators of SyncBatchNorm, which PyTorch does not have for fake tensors.
SYNCHRONIZED: dict[str, Callable[..., Any]] = {
    "aten.batch_norm_stats.default": _statistics,
    "aten.batch_norm_gather_stats_with_counts.default": _statistics,
    "aten.batch_norm_elemt.default": lambda images, *_: torch.zeros_like(images),
}
FUSED = ("_fused_", "_amp_update_scale_")  # kernels that fake tensors of a GPU do not run


class Crossings(TorchDispatchMode):
    """Names of operators that have tensors both of the host and of a GPU; fused kernels do not run.

    A copy from one to the other is such an operator.
    """

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = str(function)
        if name in SYNCHRONIZED:
            result = SYNCHRONIZED[name](*arguments)
        elif any(part in name for part in FUSED):
            result = None
        else:
            result = function(*arguments, **(options or {}))
        tensors = [t for t in tree_leaves((arguments, options, result)) if torch.is_tensor(t)]
        if len({tensor.device for tensor in tensors}) > 1:
            is_ahead = (options or {}).get("non_blocking")
            self.names.append(AHEAD if is_ahead else name)
        return result
