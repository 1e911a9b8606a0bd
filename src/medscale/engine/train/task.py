"""The task of a replicate: its network, loss and predictions. Classification is defined here."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medscale.data.loader import Loader
from medscale.data.metadata import encode
from medscale.data.shards import Shards
from medscale.engine.models.registry import build
from medscale.engine.parallel.model import Criterion, ParallelModel
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.train import records
from medscale.engine.train.recipe import CrossEntropy


class Task(Protocol):
    """What is learned from a shard set by a plan."""

    # further inputs of all samples of the shard set, float32, shape N,F; None: images are the only
    # input
    metadata: np.ndarray | None

    def network(self) -> nn.Module:
        """Return the network with its initial weights, random (torch's generator) or read."""

    def criterion(self, network: nn.Module, model: ParallelModel) -> Criterion:
        """Return the loss of the outputs of a network, which ``model`` spreads over replicas."""

    def loader(self, split: str, world: World) -> Loader:
        """Return this rank's share of the images for training (train) or validation loss (val)."""

    def part(self, criterion: Criterion, outputs: Tensor, labels: Tensor, ids: np.ndarray) -> Any:
        """Return the part of a batch's outputs that is sent to rank 0, on the host."""

    def table(self, parts: list[Any], split: str, images: int) -> pd.DataFrame:
        """Return the rows of predictions.parquet of a split with ``images`` images."""


class Classification:
    """Each image has one class; predictions are the probabilities of the classes."""

    def __init__(self, plan: RunPlan, shards: Shards) -> None:
        self._plan, self._shards = plan, shards
        self.metadata = encode(shards.rows, plan.model.metadata)

    def network(self) -> nn.Module:
        """See ``Task``: images, or images and metadata, to logits (n,K)."""
        features = 0 if self.metadata is None else self.metadata.shape[1]
        crop = self._plan.augment.crop
        side = self._shards.shape[0] if crop is None else crop.size
        channels, classes = self._shards.shape[2], len(self._shards.classes)
        return build(self._plan.model, classes, channels, features, side)

    def criterion(self, network: nn.Module, model: ParallelModel) -> CrossEntropy:
        """See ``Task``: cross-entropy."""
        labels = self._shards.labels[self._shards.positions("train")]
        counts = np.bincount(labels, minlength=len(self._shards.classes))
        return CrossEntropy(self._plan.recipe, counts, model.world.device)

    def loader(self, split: str, world: World) -> Loader:
        """See ``Task``."""
        return loader(self._plan, self._shards, split, world, metadata=self.metadata)

    def part(self, criterion: Criterion, outputs: Tensor, labels: Tensor, ids: np.ndarray) -> Any:
        """See ``Task``: ids, labels and probabilities."""
        return ids, labels.cpu().numpy(), torch.softmax(outputs, 1).cpu().numpy()

    def table(self, parts: list[Any], split: str, images: int) -> pd.DataFrame:
        """See ``Task``: ``id, split, label, p_0 … p_{K-1}``."""
        return records.predictions(parts, split, images)


def loader(
    plan: RunPlan,
    shards: Shards,
    split: str,
    world: World,
    kind: type[Loader] = Loader,
    metadata: np.ndarray | None = None,
) -> Loader:
    """Return this rank's share of a split; only training images are shuffled and augmented."""
    training = split == "train"
    return kind(
        shards,
        split,
        global_batch=plan.global_batch,
        replicas=plan.replicas,
        replica=world.replica,
        accumulate=plan.recipe.accumulate if training else 1,
        seed=plan.seed,
        training=training,
        augment=plan.augment,
        metadata=metadata,
        device=world.device,
        channels_last=plan.recipe.channels_last,
    )
