"""Batches whose targets are boxes; a flip moves both, and a sample's flip depends on (seed, epoch, sample) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medscale.base.errors import MedscaleError
from medscale.data import boxes
from medscale.data.loader import Batch, Loader, Step
from medscale.data.random import uniform
from medscale.data.shards import Shards
from medscale.engine.plan import Augment

FLIP = 16  # stream of random numbers, apart from those in data.random


class BoxLoader(Loader):
    """A loader whose batches have padded boxes (float32, shape n,M,4: x, y, width, height) in place of labels.

    Mirror images are made here, exactly and with their boxes; what else ``augment`` has changes intensities only.

    Raises:
        MedscaleError: when the shards were made without boxes, and as ``Loader``.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        *,
        augment: Augment | None = None,
        training: bool = False,
        **settings: Any,
    ) -> None:
        plain = augment.model_copy(update={"hflip": 0.0}) if augment is not None else None
        super().__init__(shards, split, augment=plain, training=training, **settings)
        self._flip = augment.hflip if augment is not None and training else 0.0
        self._places = pd.Index(shards.ids)
        self._boxes = boxes.padded(boxes.read(shards), shards.ids)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """See ``Loader.epoch``."""
        for step in super().epoch(epoch, start):
            yield replace(step, batches=[self._with_boxes(epoch, batch) for batch in step.batches])

    def _with_boxes(self, epoch: int, batch: Batch) -> Batch:
        ids = batch.ids.numpy()
        found = torch.from_numpy(self._boxes[self._places.get_indexer(ids)]).to(
            self._device, non_blocking=True
        )
        images = batch.images
        if self._flip:
            chosen = uniform(self._seed, FLIP, epoch, ids, 1)[:, 0] < self._flip
            images, found = flip(
                images, found, torch.from_numpy(chosen).to(self._device, non_blocking=True)
            )
        return replace(batch, images=images, labels=found)


def flip(images: Tensor, found: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror left and right those images (n,C,H,W) and boxes (n,M,4) that are ``chosen`` (bool, n); padding stays 0."""
    mirrored = found.clone()
    mirrored[..., 0] = torch.where(found[..., 2] > 0, 1 - found[..., 0] - found[..., 2], 0.0)
    return (
        torch.where(chosen[:, None, None, None], images.flip(3), images),
        torch.where(chosen[:, None, None], mirrored, found),
    )


def with_boxes(shards: Shards) -> Shards:
    """The same shard set with the training and validation images that have no box in no split.

    Raises:
        MedscaleError: when a split has no image with a box.
    """
    there = np.isin(shards.ids, boxes.read(shards)["id"])
    split = shards.rows["split"].where(there | (shards.rows["split"] == "test"), "left out")
    for name in ("train", "val"):
        if not (split == name).any():
            raise MedscaleError(
                f"{shards.folder}: no image of the split {name} has a box; change `split`"
            )
    return replace(shards, rows=shards.rows.assign(split=split))
