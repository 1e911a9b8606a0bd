"""The result folder of a detection run, and the test images that show its boxes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data.shards import Shards
from medscale.evaluate.detection import Localization
from medscale.evaluate.summary import describe, plain
from medscale.measure.record import spread
from medscale.report import style
from medscale.report.result import boxes, figures
from medscale.report.result.folder import Further, fill, whole_folder

IMAGES = 8  # in boxes.pdf
EMPTY_EVERY = 4  # every fourth of them has no true box
LOSS = (("loss", "loss (box + class + distribution)"),)


def write_detection(
    localization: Localization, shards: Shards, folder: str | Path, further: Further | None = None
) -> dict[str, Any]:
    """Write the result folder of a detection run and return the content of summary.json.

    ``boxes.csv`` has the data of ``boxes.pdf``: ``id, kind`` (true or predicted), ``x, y, width,
    height`` (shares of the image) and ``confidence`` of the boxes of some test images. An image
    without any box has a row with an empty kind. Raises MedscaleError when the folder cannot be
    written.
    """
    summary = summarise(localization)
    run, test = summary["run"]["name"], summary["metrics"]["test"]
    sampled, points = sample(localization, shards), localization.precision_recall
    chosen = {name: test[name]["mean"] for name in ("recall", "precision")}
    with whole_folder(Path(folder)) as new, style.house():
        drawings = {
            "curves": figures.curves(localization.curves, run, LOSS),
            "boxes": boxes.boxes(sampled, images(shards, sampled), run),
            "pr": boxes.precision_recall(points, chosen, run),
        }
        tables = {
            "metrics": localization.scores,
            "curves": localization.curves,
            "pr": points,
            "resamples": localization.resamples,
            "boxes": sampled,
        }
        fill(new, summary, drawings, tables, None, further)
    return summary


def summarise(localization: Localization) -> dict[str, Any]:
    """Return the content of summary.json of a detection run; an undefined value is None."""
    return plain(describe(localization) | {"thresholds": localization.thresholds})


def sample(localization: Localization, shards: Shards) -> pd.DataFrame:
    """Return the boxes of some test images, evenly spread over the ids, as ``boxes.csv``."""
    ids = np.sort(shards.ids[shards.positions("test")])
    with_boxes = np.isin(ids, localization.true["id"])
    empty = spread(ids[~with_boxes], IMAGES // EMPTY_EVERY)
    chosen = np.sort(np.concatenate([spread(ids[with_boxes], IMAGES - len(empty)), empty]))
    parts = [
        part[part["id"].isin(chosen)].assign(kind=kind)
        for kind, part in (("true", localization.true), ("predicted", localization.predicted))
    ]
    table = pd.concat(parts, ignore_index=True)
    without = chosen[~np.isin(chosen, table["id"])]
    table = pd.concat([table, pd.DataFrame({"id": without, "kind": ""})], ignore_index=True)
    columns = ["id", "kind", "x", "y", "width", "height", "confidence"]
    return table.reindex(columns=columns).sort_values("id", kind="stable")


def images(shards: Shards, table: pd.DataFrame) -> dict[int, np.ndarray]:
    """Return the images (uint8, shape H,W,3) of a boxes.csv by id.

    Raises MedscaleError when the shards do not have such an image.
    """
    ids = np.unique(table["id"].to_numpy(np.int64))
    positions = pd.Index(shards.ids).get_indexer(ids)
    if (positions < 0).any():
        raise MedscaleError(
            f"{shards.folder} has no image {ids[positions < 0][0]}; it was made from another index"
        )
    return dict(zip(ids.tolist(), shards.gather(positions), strict=True))
