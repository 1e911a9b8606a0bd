"""The recipe of a training: optimizer, learning rate and loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.optim.sgd import sgd

from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Recipe, RunPlan

SGD_SETTINGS = ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")
PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_THRESHOLD = 0.1, 2, 1e-4


class SGD(torch.optim.SGD):
    """Fused SGD, also for the sharded parameters of FSDP, for which PyTorch has none.

    An update is element by element, so each rank updates its own part.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """See ``torch.optim.SGD``."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            sgd(
                [_local(p) for p in parameters],
                [_local(p.grad) for p in parameters],
                [_local(self.state[p]["momentum_buffer"]) for p in parameters],
                fused=True,
                found_inf=getattr(self, "found_inf", None),
                **{name: group[name] for name in SGD_SETTINGS},
            )


def _local(values: Tensor) -> Tensor:
    return values.to_local() if isinstance(values, DTensor) else values


def optimizer(network: nn.Module, recipe: Recipe, precision: Precision) -> torch.optim.Optimizer:
    """Return the recipe's optimizer for the parameters of this rank that are trained.

    A CUDA graph can capture it: the learning rate is a tensor (``set_rate``), and a step
    whose gradient overflows in fp16 is skipped on the device, which only PyTorch's fused
    optimizers do.
    """
    kinds: dict[str, type[torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": SGD,
    }
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    cuda = precision.scale.device.type == "cuda"
    # The kernels read fp32 on a GPU; on a CPU a rate in fp64 is the number itself.
    rate = precision.scale.new_zeros((), dtype=torch.float32 if cuda else torch.float64)
    options: dict[str, Any] = {"lr": rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        options |= {"momentum": 0.9, "nesterov": True}
    else:
        options["capturable"] = cuda
    result = kinds[recipe.optimizer](parameters, **options)
    if recipe.optimizer == "sgd":
        # PyTorch leaves the momentum without values if the very first step is skipped.
        for parameter in parameters:
            result.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    if precision.scaling:
        result.found_inf = precision.overflow  # type: ignore[attr-defined]
    return result


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, in the tensor that a captured step reads."""
    for group in optimizer.param_groups:
        group["lr"].fill_(rate)


def learning_rate(plan: RunPlan, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of an optimizer step, without the factor of a plateau.

    Linear warm-up (Goyal et al. 2017), then constant or a cosine down to 0 (Loshchilov and Hutter
    2017).

    Args:
        plan: the replicate.
        step: number of the step since the beginning, from 0.
        steps_per_epoch: optimizer steps per epoch.
    """
    recipe = plan.recipe
    warmup, total = round(recipe.warmup_epochs * steps_per_epoch), recipe.epochs * steps_per_epoch
    if step < warmup:
        return plan.learning_rate * (step + 1) / warmup
    if recipe.schedule != "cosine":
        return plan.learning_rate
    angle = math.pi * (step - warmup) / max(1, total - warmup)
    return plan.learning_rate * 0.5 * (1 + math.cos(angle))


class CrossEntropy:
    """Sum of cross-entropies over a batch, with the recipe's label smoothing and class weights.

    Class weights are inverse to the class sizes, with mean 1 over the training images.

    Args:
        recipe: the settings.
        counts: training images per class, shape K.
        device: device of the logits.
    """

    judges = ranks = True

    def __init__(self, recipe: Recipe, counts: np.ndarray, device: torch.device) -> None:
        self._smoothing = recipe.label_smoothing
        self._weights = None
        if recipe.class_weights:
            weights = counts.sum() / np.maximum(counts, 1) / np.count_nonzero(counts)
            self._weights = torch.tensor(weights, dtype=torch.float32, device=device)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of losses, float32 scalar, of logits (n,K) and class codes (n)."""
        return functional.cross_entropy(
            logits, labels, weight=self._weights, label_smoothing=self._smoothing, reduction="sum"
        )

    def correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the number of images whose class has the largest logit, int64 scalar."""
        return (logits.detach().argmax(1) == labels).sum()

    def join(self) -> None:
        """See ``Criterion``: nothing is exchanged, as the loss of an image needs no other image."""


def plateau(validation_losses: list[float]) -> float:
    """Return the factor on the learning rate after epochs with these validation losses.

    This is torch's ReduceLROnPlateau as a function of the history, so that a restart needs no
    state. The rate falls to a tenth when the loss did not improve (by 1e-4 of itself) for more than
    two epochs.
    """
    best, bad_epochs, factor = math.inf, 0, 1.0
    for loss in validation_losses:
        if loss < best * (1 - PLATEAU_THRESHOLD):
            best, bad_epochs = loss, 0
        else:
            bad_epochs += 1
        if bad_epochs > PLATEAU_PATIENCE:
            factor, bad_epochs = factor * PLATEAU_FACTOR, 0
    return factor
