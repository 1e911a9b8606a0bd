"""Boxes of images: from pixels of the index to shares of the image, and to padded arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_table
from medscale.data.shards import BOXES, Shards

SIDES = ["x", "y", "width", "height"]


def relative(index: pd.DataFrame, index_file: str | Path) -> pd.DataFrame:
    """Return all boxes of an index as shares of their images' sides.

    For detection, images are stretched to squares, which does not change these shares. Parts of a
    box outside the image are cut off.

    Args:
        index: index with ``id, width, height`` and ``boxes``: for each image a list of ``[x, y,
            width, height]`` in pixels of the original frame, with x and y of the top left corner;
            empty for an image without boxes.
        index_file: path of the index, for messages.

    Returns:
        One row for each box: ``id`` and ``x, y, width, height`` in [0, 1].

    Raises:
        MedscaleError: when the index has no boxes, or a box is invalid or outside its image.
    """
    counts, pixels = _pixels(index, index_file)
    ids = np.repeat(index["id"].to_numpy(np.int64), counts)
    sizes = np.repeat(index[["width", "height"]].to_numpy(np.float64), counts, axis=0)
    corners = np.hstack([pixels[:, :2], pixels[:, :2] + pixels[:, 2:]]) / np.tile(sizes, 2)
    corners = corners.clip(0, 1)
    sides = corners[:, 2:] - corners[:, :2]
    valid = np.isfinite(pixels).all(axis=1) & (pixels[:, 2:] > 0).all(axis=1)
    is_invalid = ~(valid & (sides > 0).all(axis=1))
    if is_invalid.any():
        raise MedscaleError(
            f"{index_file}: {int(is_invalid.sum())} boxes have no area inside their image (first: "
            f"id {ids[is_invalid][0]}, {pixels[is_invalid][0].tolist()}); correct the source table "
            "of boxes"
        )
    shares = np.hstack([corners[:, :2], sides])
    return pd.DataFrame({"id": ids, **dict(zip(SIDES, shares.T, strict=True))})


def _pixels(index: pd.DataFrame, index_file: str | Path) -> tuple[list[int], np.ndarray]:
    """Return the number of boxes of each image, and all boxes (float64, shape (N, 4))."""
    if "boxes" not in index.columns:
        raise MedscaleError(
            f"{index_file} has no column `boxes`; detection needs a dataset kind with boxes"
        )
    try:
        counts = [len(boxes) for boxes in index["boxes"]]
        boxes = [[float(side) for side in box] for boxes in index["boxes"] for box in boxes]
        return counts, np.array(boxes).reshape(-1, 4)
    except (TypeError, ValueError):
        raise MedscaleError(
            f"{index_file}: `boxes` must hold lists of boxes, each of four numbers x, y, width, "
            "height; correct the source's table of boxes"
        ) from None


def read(shards: Shards) -> pd.DataFrame:
    """Return the boxes of a shard set, in the form of ``relative``.

    Raises:
        MedscaleError: when the shard set has no boxes.
    """
    boxes: pd.DataFrame = read_table(shards.folder / BOXES, "delete the folder and run again")
    return boxes


def pad(boxes: pd.DataFrame, ids: np.ndarray) -> np.ndarray:
    """Return boxes by image, padded with zeros.

    Args:
        boxes: result of ``relative``.
        ids: ids of the images, int64, shape N.

    Returns:
        float32, shape N,M,4; M is the largest number of boxes of an image, at least 1. Padding has
        width 0.
    """
    boxes = boxes.sort_values("id", kind="stable")
    number = boxes.groupby("id").cumcount().to_numpy()
    position = pd.Index(ids).get_indexer(boxes["id"])
    is_listed = position >= 0
    out = np.zeros((len(ids), int(number[is_listed].max(initial=0)) + 1, 4), np.float32)
    out[position[is_listed], number[is_listed]] = boxes[SIDES].to_numpy(np.float32)[is_listed]
    return out
