"""What decides how weights change, apart from the strategy: optimizer, learning rate, loss, early stopping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medscale.engine.plan import Recipe, RunPlan

PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_THRESHOLD = 0.1, 2, 1e-4


def optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of this rank that are trained."""
    kinds: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
    }
    options: dict[str, Any] = {
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "fused": recipe.fused,
    }
    if recipe.optimizer == "sgd":
        options |= {"momentum": 0.9, "nesterov": True}
    return kinds[recipe.optimizer]([p for p in network.parameters() if p.requires_grad], **options)


def learning_rate(plan: RunPlan, step: int, steps_per_epoch: int) -> float:
    """Learning rate of an optimizer step, counted from 0, before what a plateau takes off.

    Linear warm-up (Goyal et al. 2017), then constant or a cosine down to 0 (Loshchilov and Hutter 2017).
    """
    recipe = plan.recipe
    warm, total = round(recipe.warmup_epochs * steps_per_epoch), recipe.epochs * steps_per_epoch
    if step < warm:
        return plan.learning_rate * (step + 1) / warm
    if recipe.schedule != "cosine":
        return plan.learning_rate
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


class Criterion:
    """Sum of cross-entropies over a batch; label smoothing and class weights by the recipe.

    Class weights are inverse to the class sizes and have mean 1 over the training images.

    Args:
        recipe: the settings.
        counts: training images a class, shape K.
        device: where the logits are.
    """

    judges = ranks = True

    def __init__(self, recipe: Recipe, counts: np.ndarray, device: torch.device) -> None:
        self._smoothing = recipe.label_smoothing
        weights = counts.sum() / np.maximum(counts, 1) / np.count_nonzero(counts)
        self._weights = (
            torch.tensor(weights, dtype=torch.float32, device=device)
            if recipe.class_weights
            else None
        )

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of losses, float32 scalar, of logits (n,K) and class codes (n)."""
        return functional.cross_entropy(
            logits, labels, weight=self._weights, label_smoothing=self._smoothing, reduction="sum"
        )

    def correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Number of images whose class has the largest logit, int64 scalar."""
        return (logits.detach().argmax(1) == labels).sum()


def plateau(validation_losses: list[float]) -> float:
    """Factor on the learning rate after these epochs: as torch's ReduceLROnPlateau, as a function of the history.

    The rate is cut to a tenth when the loss was not better (by 1e-4 of itself) for more than two epochs.
    """
    best, bad, factor = math.inf, 0, 1.0
    for loss in validation_losses:
        if loss < best * (1 - PLATEAU_THRESHOLD):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > PLATEAU_PATIENCE:
            factor, bad = factor * PLATEAU_FACTOR, 0
    return factor
