"""Detection as a task of the training loop: YOLOv8, its loss, and predicted boxes."""

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
from medscale.engine.parallel.model import Criterion, ParallelModel
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.train.records import check_ids
from medscale.engine.train.task import loader

SMALLEST_CONFIDENCE = 0.01  # boxes below are dropped
LARGEST_OVERLAP = 0.5  # IoU above which the less confident of two boxes is dropped
MOST_BOXES = 100  # per image, as in COCO's evaluation


class BoxCriterion(Criterion, Protocol):
    """A criterion that also decodes boxes."""

    def decode(self, raw: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return corners and confidences of raw outputs.

        Corners are left, top, right, bottom as shares of the image, shape n,A,4; confidences have
        shape n,A.
        """


class Detection:
    """Boxes of one class.

    ``detect.images`` decides whether images without a box are used for training and validation
    loss. Predictions are made for all images. Raises MedscaleError when the shards have another
    image size or no boxes.
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

    def criterion(self, network: nn.Module, model: ParallelModel) -> BoxCriterion:
        """See ``Task``."""
        return yolo.BoxLoss(network, self._size, model.sum_over_replicas)

    def loader(self, split: str, world: World) -> Loader:
        """See ``Task``."""
        return loader(self._plan, self._used, split, world, BoxLoader)

    def part(self, criterion: Criterion, outputs: Tensor, labels: Tensor, ids: np.ndarray) -> Any:
        """See ``Task``: ids of the images; of each box the image's position, and the box."""
        corners, confidence = criterion.decode(outputs)  # type: ignore[attr-defined]
        boxes = [suppress(c, s).cpu() for c, s in zip(corners, confidence, strict=True)]
        positions = np.repeat(np.arange(len(ids)), [len(image_boxes) for image_boxes in boxes])
        return ids, positions, torch.cat(boxes).numpy()

    def table(self, parts: list[Any], split: str, images: int) -> pd.DataFrame:
        """See ``Task``: a row per box, ``id, split, x, y, width, height, confidence``."""
        check_ids(np.concatenate([ids for ids, _, _ in parts]), split, images)
        box_ids = np.concatenate([ids[positions] for ids, positions, _ in parts])
        table = pd.DataFrame({"id": box_ids, "split": split})
        table[[*SIDES, "confidence"]] = np.concatenate([boxes for _, _, boxes in parts])
        return table.sort_values(
            ["id", "confidence"], ascending=[True, False], kind="stable", ignore_index=True
        )


def suppress(corners: Tensor, confidence: Tensor) -> Tensor:
    """Return the boxes of one image after non-maximum suppression, most confident first.

    Args:
        corners: left, top, right, bottom, shape A,4.
        confidence: shape A.

    Returns:
        ``x, y, width, height, confidence``, shape n,5 with n at most MOST_BOXES; boxes without area
        are dropped.
    """
    sides = corners[:, 2:] - corners[:, :2]
    valid = (confidence >= SMALLEST_CONFIDENCE) & (sides > 0).all(dim=1)
    corners, sides, confidence = corners[valid], sides[valid], confidence[valid]
    indices = nms(corners, confidence, LARGEST_OVERLAP)[:MOST_BOXES]
    return torch.cat([corners[indices, :2], sides[indices], confidence[indices, None]], dim=1)
