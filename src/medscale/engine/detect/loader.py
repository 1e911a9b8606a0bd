"""Batches with boxes as targets; a flip mirrors an image together with its boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medscale.base.errors import MedscaleError
from medscale.data import boxes
from medscale.data.ahead import upload
from medscale.data.loader import Batch, Loader
from medscale.data.random import uniform
from medscale.data.shards import Shards
from medscale.engine.plan import Augment

FLIP = 16  # stream of random numbers; data.random lists the streams of augmentation


class BoxLoader(Loader):
    """A loader with padded boxes (float32, shape n,M,4: x, y, width, height) instead of labels.

    Horizontal flips are done here, together with the boxes; whether a sample is flipped depends on
    (seed, epoch, sample) alone. The other augmentations change intensities only. Raises
    MedscaleError when the shards have no boxes, and as ``Loader``.
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
        augment = augment or Augment()
        unflipped = augment.model_copy(update={"hflip": 0.0})
        super().__init__(shards, split, augment=unflipped, training=training, **settings)
        self._flip = augment.hflip if training else 0.0
        self._rows = pd.Index(shards.ids)
        self._boxes = boxes.pad(boxes.read(shards), shards.ids)

    def blank(self, count: int) -> Batch:
        """See ``Loader.blank``: no image has a box."""
        boxes = torch.zeros(count, *self._boxes.shape[1:], device=self._device)
        return replace(super().blank(count), labels=boxes)

    def _batches(self, epoch: int, share: np.ndarray, images: Tensor) -> list[Batch]:
        batches = super()._batches(epoch, share, images)
        return [self._with_boxes(epoch, batch) for batch in batches]

    def _with_boxes(self, epoch: int, batch: Batch) -> Batch:
        ids = batch.ids.numpy()
        targets = upload(torch.from_numpy(self._boxes[self._rows.get_indexer(ids)]), self._device)
        images = batch.images
        if self._flip:
            flipped = uniform(self._seed, FLIP, epoch, ids, 1)[:, 0] < self._flip
            images, targets = flip(images, targets, upload(torch.from_numpy(flipped), self._device))
        return replace(batch, images=images, labels=targets)


def flip(images: Tensor, targets: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror images (n,C,H,W) and boxes (n,M,4) left to right where ``flipped`` (bool, n)."""
    mirrored = targets.clone()
    x, width = targets[..., 0], targets[..., 2]
    mirrored[..., 0] = torch.where(width > 0, 1 - x - width, 0.0)  # boxes of padding stay zero
    return (
        torch.where(flipped[:, None, None, None], images.flip(3), images),
        torch.where(flipped[:, None, None], mirrored, targets),
    )


def with_boxes(shards: Shards) -> Shards:
    """Return the shard set without the training and validation images that have no box.

    Raises MedscaleError when a split has no image with a box.
    """
    has_box = np.isin(shards.ids, boxes.read(shards)["id"])
    split = shards.rows["split"].where(has_box | (shards.rows["split"] == "test"), "left out")
    for name in ("train", "val"):
        if not (split == name).any():
            raise MedscaleError(
                f"{shards.folder}: no image of the split {name} has a box; change `split`"
            )
    return replace(shards, rows=shards.rows.assign(split=split))
