"""The files of a run folder: history, predictions, weights, timing, environment."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import save_file
from torch import Tensor

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, write_csv, write_json, write_parquet
from medscale.base.log import log
from medscale.base.paths import TIMING
from medscale.base.provenance import utc_now
from medscale.engine.epochs import timed_epochs
from medscale.engine.plan import RunPlan
from medscale.engine.train.clock import KINDS
from medscale.engine.train.progress import Progress


def predictions(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], split: str, images: int
) -> pd.DataFrame:
    """Return a table ``id, split, label, p_0 … p_{K-1}`` of a split, sorted by id.

    Raises MedscaleError when an image is missing or occurs twice; this is a bug of the loader.

    Args:
        parts: ids (int64, n), labels (int64, n) and probabilities (float32, n,K) of batches.
        split: its name.
        images: number of images in the split.
    """
    ids, labels, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
    check_ids(ids, split, images)
    columns = {f"p_{code}": column for code, column in enumerate(probabilities.T)}
    table = pd.DataFrame({"id": ids, "split": split, "label": labels} | columns)
    return table.sort_values("id", ignore_index=True)


def check_ids(ids: np.ndarray, split: str, images: int) -> None:
    """Fail unless each image of a split was predicted once; otherwise the loader has a bug."""
    distinct = len(np.unique(ids))
    if len(ids) != images or distinct != images:
        raise MedscaleError(
            f"{split}: {len(ids)} predictions of {distinct} images, expected {images}"
        )


def write(
    folder: Path,
    progress: Progress,
    *,
    weights: dict[str, Tensor],
    predicted: pd.DataFrame,
    timing: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write all outputs of a finished replicate, each atomically.

    Args:
        folder: the run folder.
        progress: the finished progress.
        weights: tensors of the network by name.
        predicted: predictions of all splits.
        timing: content of timing.json.
        provenance: ``base.provenance.environment`` when training began.
    """
    write_csv(folder / "history.csv", pd.DataFrame(progress.history))
    write_parquet(folder / "predictions.parquet", predicted)
    with atomic(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    write_json(folder / "environment.json", provenance | {"finished": utc_now()})
    write_json(folder / TIMING, timing)


def timing(
    plan: RunPlan, progress: Progress, train_images: int, measured: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of timing.json: epochs, throughput, seconds by kind, and ``measured``.

    Times of an epoch are those of ``timed_epochs``.
    """
    history = pd.DataFrame(progress.history)
    timed = timed_epochs(history, plan.run.devices)
    if plan.run.devices not in set(timed["processes"]):
        log.warning("no epoch ran on %d processes: times are of fewer", plan.run.devices)
    seconds = timed["seconds"].tolist()
    # The first epoch is slower, since caches and buffers are set up.
    per_epoch = statistics.median(seconds[1:] or seconds)
    return {
        "world_size": plan.run.devices,
        "global_batch": plan.global_batch,
        "train_images": train_images,
        "hardware": timed["hardware"].iloc[0],
        "epochs": len(history),
        "best_epoch": progress.best_epoch,
        "epoch_seconds": history["seconds"].tolist(),
        "first_epoch_seconds": seconds[0],
        "seconds_per_epoch": per_epoch,
        "images_per_second": train_images / per_epoch,
        "images_per_second_first_epoch": train_images / seconds[0],
        "seconds": {kind: float(timed[f"{kind}_s"].sum()) for kind in KINDS},
        "restarts": progress.restarts,
        "stopped": progress.stopped,
        **measured,
    }
