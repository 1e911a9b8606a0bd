"""Localization as a task of the training loop: YOLOv8, its loss, and a row a box as predictions."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from medscale.base.errors import MedscaleError
from medscale.data.boxes import SIDES
from medscale.data.loader import Loader
from medscale.data.shards import Shards
from medscale.engine.detect import yolo
from medscale.engine.detect.loader import BoxLoader, with_boxes
from medscale.engine.parallel.strategies import Criterion
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.train.task import loader

LEAST = 0.01  # confidence below which a box is not kept
OVERLAP = 0.5  # IoU above which the less confident of two boxes is dropped
MOST = 100  # boxes an image, as in COCO's evaluation


class BoxCriterion(Criterion, Protocol):
    """A criterion that also says where the boxes are."""

    def decode(self, raw: Tensor, /) -> tuple[Tensor, Tensor]:
        """Corners (n,A,4: left, top, right, bottom as shares of the image) and confidences (n,A)."""


class Detection:
    """Boxes of one class. Images without a box train as ``detect.images`` says; predicted are those of all images.

    Raises:
        MedscaleError: when the shards were not made for detection, or hold no boxes to train on.
    """

    def __init__(self, plan: RunPlan, shards: Shards) -> None:
        assert plan.detect is not None
        size = plan.detect.size
        if shards.shape != (size, size, 3):
            raise MedscaleError(
                f"{shards.folder} has images of shape {shards.shape}, but detect.size is {size}"
            )
        self._plan, self._size = plan, size
        self.metadata: np.ndarray | None = None
        self._used = with_boxes(shards) if plan.detect.images == "with_boxes" else shards

    def network(self) -> nn.Module:
        """See ``Task``."""
        return yolo.build(self._plan.model)

    def criterion(self, network: nn.Module, device: torch.device) -> BoxCriterion:
        """See ``Task``."""
        return yolo.BoxLoss(network, self._size)

    def loader(self, split: str, world: World) -> Loader:
        """See ``Task``."""
        return loader(self._plan, self._used, split, world, BoxLoader)

    def part(self, criterion: Criterion, outputs: Tensor, labels: Tensor, ids: np.ndarray) -> Any:
        """See ``Task``: ids of the images, and of each box its image's number, its sides and its confidence."""
        corners, confidence = criterion.decode(outputs)  # type: ignore[attr-defined]
        kept = [suppress(c, s).cpu() for c, s in zip(corners, confidence, strict=True)]
        numbers = np.repeat(np.arange(len(ids)), [len(found) for found in kept])
        return ids, numbers, torch.cat(kept).numpy()

    def table(self, parts: list[Any], split: str, images: int) -> pd.DataFrame:
        """See ``Task``: ``id, split, x, y, width, height, confidence``; an image without boxes has no row."""
        seen = np.concatenate([ids for ids, _, _ in parts])
        if len(seen) != images or len(np.unique(seen)) != images:
            raise MedscaleError(
                f"{split}: {len(seen)} images predicted, {len(np.unique(seen))} of {images} different"
            )
        found = np.concatenate([sides for _, _, sides in parts])
        table = pd.DataFrame(
            {"id": np.concatenate([ids[numbers] for ids, numbers, _ in parts]), "split": split}
        )
        table[[*SIDES, "confidence"]] = found
        return table.sort_values(
            ["id", "confidence"], ascending=[True, False], kind="stable", ignore_index=True
        )


def suppress(corners: Tensor, confidence: Tensor) -> Tensor:
    """The boxes of one image that are kept, most confident first (non-maximum suppression by torchvision).

    Args:
        corners: left, top, right, bottom, shape A,4.
        confidence: shape A.

    Returns:
        ``x, y, width, height, confidence``, shape at most MOST,5; boxes without area are left out.
    """
    sides = corners[:, 2:] - corners[:, :2]
    sure = (confidence >= LEAST) & (sides > 0).all(dim=1)
    corners, sides, confidence = corners[sure], sides[sure], confidence[sure]
    kept = nms(corners, confidence, OVERLAP)[:MOST]
    return torch.cat([corners[kept, :2], sides[kept], confidence[kept, None]], dim=1)
