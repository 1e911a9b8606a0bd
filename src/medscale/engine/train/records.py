"""What a replicate leaves in its run folder: history, predictions, weights, timing, environment."""

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
from medscale.base.provenance import now
from medscale.engine.plan import RunPlan
from medscale.engine.train.clock import KINDS
from medscale.engine.train.progress import Progress


def predictions(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], split: str, images: int
) -> pd.DataFrame:
    """A table ``id, split, label, p_0 … p_{K-1}`` of a split, by id.

    Args:
        parts: a rank's ids (int64, n), labels (int64, n) and probabilities (float32, n,K); ranks without output none.
        split: its name.
        images: how many there must be.

    Raises:
        MedscaleError: when an image is missing or stands twice; this is a bug of the loader.
    """
    ids, labels, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(ids) != images or len(np.unique(ids)) != images:
        raise MedscaleError(
            f"{split}: {len(ids)} predictions of {len(np.unique(ids))} images, expected {images}"
        )
    table = pd.DataFrame({"id": ids, "split": split, "label": labels})
    for code in range(probabilities.shape[1]):
        table[f"p_{code}"] = probabilities[:, code]
    return table.sort_values("id", ignore_index=True)


def write(
    folder: Path,
    progress: Progress,
    *,
    weights: dict[str, Tensor],
    predicted: pd.DataFrame,
    timing: dict[str, Any],
    made: dict[str, Any],
) -> None:
    """Write all outputs of a finished replicate, each atomically; ``made`` is what it was made of when it began."""
    write_csv(folder / "history.csv", pd.DataFrame(progress.history))
    write_parquet(folder / "predictions.parquet", predicted)
    with atomic(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    write_json(folder / "environment.json", made | {"finished": now()})
    write_json(folder / "timing.json", timing)


def timing(
    plan: RunPlan, progress: Progress, train_images: int, measured: dict[str, Any]
) -> dict[str, Any]:
    """The summary of a replicate's clock, timing.json; what is in ``measured`` is added."""
    rows = progress.history
    seconds = [row["seconds"] for row in rows]
    later = seconds[1:] or seconds
    per_epoch = statistics.median(later)
    return {
        "world_size": plan.run.devices,
        "global_batch": plan.global_batch,
        "train_images": train_images,
        "epochs": len(rows),
        "best_epoch": progress.best_epoch,
        "epoch_seconds": seconds,
        "first_epoch_seconds": seconds[0],
        "seconds_per_epoch": per_epoch,
        "images_per_second": train_images / per_epoch,
        "images_per_second_first_epoch": train_images / seconds[0],
        "seconds": {kind: sum(row[f"{kind}_s"] for row in rows) for kind in KINDS},
        "restarts": progress.restarts,
        "stopped": progress.stopped,
        **measured,
    }
