"""Boxes of an image: from the index's pixels to shares of the image, and from there to padded arrays by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data.shards import Shards

BOXES = "boxes.parquet"
SIDES = ["x", "y", "width", "height"]


def relative(index: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """All boxes of an index: a row a box, ``id`` and ``x, y, width, height`` in [0, 1] of the image's sides.

    Images are stretched to squares for detection, which keeps these shares. What lies outside the image is cut off.

    Args:
        index: with ``id, width, height`` and ``boxes``: a list of ``[x, y, width, height]`` an image, in pixels of the
            original frame, x and y of the top left corner; empty for an image without boxes.
        where: the index's file, for messages.

    Raises:
        MedscaleError: when there is no such column, or a box is none or lies outside its image.
    """
    if "boxes" not in index.columns:
        raise MedscaleError(f"{where} has no column `boxes`: detection needs a source with boxes")
    try:
        counts = [len(boxes) for boxes in index["boxes"]]
        pixels = np.array(
            [[float(side) for side in box] for boxes in index["boxes"] for box in boxes]
        ).reshape(-1, 4)
    except (TypeError, ValueError):
        raise MedscaleError(
            f"{where}: `boxes` is no list of boxes of four numbers x, y, width, height"
        ) from None
    ids = np.repeat(index["id"].to_numpy(np.int64), counts)
    sizes = np.repeat(index[["width", "height"]].to_numpy(np.float64), counts, axis=0)
    corners = np.hstack([pixels[:, :2], pixels[:, :2] + pixels[:, 2:]]) / np.tile(sizes, 2)
    corners = corners.clip(0, 1)
    sides = corners[:, 2:] - corners[:, :2]
    wrong = ~(
        np.isfinite(pixels).all(axis=1) & (pixels[:, 2:] > 0).all(axis=1) & (sides > 0).all(axis=1)
    )
    if wrong.any():
        raise MedscaleError(
            f"{where}: {int(wrong.sum())} boxes have no area inside their image (first: id {ids[wrong][0]}, "
            f"{pixels[wrong][0].tolist()}); correct the source's table of boxes"
        )
    return pd.DataFrame(
        {"id": ids, **dict(zip(SIDES, np.hstack([corners[:, :2], sides]).T, strict=True))}
    )


def read(shards: Shards) -> pd.DataFrame:
    """The boxes of a shard set that was made with them, as ``relative`` gives them.

    Raises:
        MedscaleError: when it was made without.
    """
    try:
        return pd.read_parquet(shards.folder / BOXES)
    except (OSError, ValueError) as error:
        raise MedscaleError(
            f"{shards.folder} was made without boxes ({error}); delete it and run again"
        ) from None


def padded(boxes: pd.DataFrame, ids: np.ndarray) -> np.ndarray:
    """Boxes by image: float32, shape N,M,4 in the order of ``ids`` (int64, N), M the most that one has, at least 1.

    Rows that an image does not need are zero: their width tells them apart.
    """
    boxes = boxes.sort_values("id", kind="stable")
    number = boxes.groupby("id").cumcount().to_numpy()
    place = pd.Index(ids).get_indexer(boxes["id"])
    known = place >= 0
    out = np.zeros((len(ids), int(number[known].max(initial=0)) + 1, 4), np.float32)
    out[place[known], number[known]] = boxes[SIDES].to_numpy(np.float32)[known]
    return out
