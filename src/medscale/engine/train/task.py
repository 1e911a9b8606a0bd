"""What a replicate learns: network, loss and predictions; how it is trained is the same for every task."""

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
from medscale.engine.parallel.strategies import Criterion as AnyCriterion
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.train import records
from medscale.engine.train.recipe import Criterion


class Task(Protocol):
    """A plan and a shard set, and what is to be learned of it.

    Attributes:
        metadata: features of all samples of the shard set, float32, shape N,F; None: images alone are input.
    """

    metadata: np.ndarray | None

    def network(self) -> nn.Module:
        """The network with its first weights, drawn from torch's global generator or read."""

    def criterion(self, network: nn.Module, device: torch.device) -> AnyCriterion:
        """The loss of the network's outputs on a device."""

    def loader(self, split: str, world: World) -> Loader:
        """This rank's share of what is trained on (train) and of what tells the validation loss (val)."""

    def part(
        self, criterion: AnyCriterion, outputs: Tensor, labels: Tensor, ids: np.ndarray
    ) -> Any:
        """What is kept of a batch's outputs, on the host; ranks hand it to rank 0."""

    def table(self, parts: list[Any], split: str, images: int) -> pd.DataFrame:
        """predictions.parquet's rows of a split of so many images, from all ranks' parts."""


class Classification:
    """Each image has one class; predictions are the probabilities of the classes."""

    def __init__(self, plan: RunPlan, shards: Shards) -> None:
        self._plan, self._shards = plan, shards
        self.metadata = encode(shards.rows, plan.model.metadata)

    def network(self) -> nn.Module:
        """See ``Task``: images, or images and metadata, to logits (n,K)."""
        beside = 0 if self.metadata is None else self.metadata.shape[1]
        return build(self._plan.model, len(self._shards.classes), self._shards.shape[2], beside)

    def criterion(self, network: nn.Module, device: torch.device) -> Criterion:
        """See ``Task``: cross-entropy."""
        of_training = self._shards.labels[self._shards.positions("train")]
        return Criterion(
            self._plan.recipe, np.bincount(of_training, minlength=len(self._shards.classes)), device
        )

    def loader(self, split: str, world: World) -> Loader:
        """See ``Task``."""
        return loader(self._plan, self._shards, split, world, metadata=self.metadata)

    def part(
        self, criterion: AnyCriterion, outputs: Tensor, labels: Tensor, ids: np.ndarray
    ) -> Any:
        """See ``Task``: ids, labels and probabilities."""
        return ids, labels.cpu().numpy(), torch.softmax(outputs, 1).cpu().numpy()

    def table(self, parts: list[Any], split: str, images: int) -> pd.DataFrame:
        """See ``Task``."""
        return records.predictions(parts, split, images)


def loader(
    plan: RunPlan,
    shards: Shards,
    split: str,
    world: World,
    kind: type[Loader] = Loader,
    metadata: np.ndarray | None = None,
) -> Loader:
    """This rank's share of a split; only training images are shuffled and augmented."""
    training = split == "train"
    return kind(
        shards,
        split,
        global_batch=plan.global_batch,
        replicas=plan.run.replicas,
        replica=world.replica,
        accumulate=plan.recipe.accumulate if training else 1,
        seed=plan.seed,
        training=training,
        augment=plan.augment,
        metadata=metadata,
        device=world.device,
        channels_last=plan.recipe.channels_last,
    )
