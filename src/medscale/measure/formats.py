"""The same training in each number format: its throughput, memory, energy and accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medscale.base.code import package_digest
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table, write_json
from medscale.base.log import log
from medscale.base.paths import TIMING
from medscale.config.benchmarks import Formats
from medscale.engine.formats import NumberFormat, in_format, lacking
from medscale.engine.plan import RunPlan
from medscale.evaluate import metrics
from medscale.measure.record import in_turns, start_method

WAYS = {
    "fp32": ("fp32", "IEEE single precision"),
    "tf32": ("tf32", "fp32 tensors; products round their inputs to a mantissa of 10 bits"),
    "bf16": ("bf16", "mixed precision in bfloat16"),
    "fp16": ("fp16", "mixed precision in half precision, with loss scaling"),
}
SCORES = ("accuracy", "balanced_accuracy", "auroc")
COLUMNS = ["run", "format", "seed", "devices", "global_batch", "epochs", "images", "seconds"]
COLUMNS += ["hardware", "wall_seconds", "device_mb", "joules", *SCORES]
Train = Callable[[RunPlan, Path], None]  # trains a plan and writes its run folder


def measure_formats(
    plan: RunPlan, seeds: Sequence[int], settings: Formats, shards: str, work: Path, train: Train
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Train a run in each format with each seed, in turns, and evaluate it on the test images.

    A replicate that is finished below ``work`` with the same plan, images and code is not trained
    again. One that was interrupted goes on from its checkpoint.

    Args:
        plan: plan of the run; its precision is replaced.
        seeds: seeds of the replicates.
        settings: formats, and the number of epochs if it is not the recipe's.
        shards: digest of the shard set.
        work: folder of the run folders.
        train: function that trains a plan.

    Returns:
        One row for each format and seed with the columns ``COLUMNS``: ``images`` of an epoch and
        its ``seconds`` (median without the first epoch), ``device_mb`` (largest over the devices;
        NaN on CPUs), ``joules`` (NaN if the device does not report them), and scores of the test
        images as shares. Second, the reason for each format that the device lacks.

    Raises:
        MedscaleError: when a training fails, or their hardware differs, as on another node after an
            interruption.
    """
    missing = _missing(plan, settings.formats)
    present = [name for name in settings.formats if name not in missing]
    rows = []
    for repeat, seed in enumerate(seeds):
        for name in in_turns(present, repeat):
            replicate = in_format(plan, name, settings.epochs, seed)
            folder = work / name / f"seed{seed}"
            if not _is_finished(replicate, shards, folder):
                # Without this file, an earlier training of the folder does not count as finished.
                (folder / TIMING).unlink(missing_ok=True)
                write_json(folder / "spec.json", replicate.model_dump(mode="json"))
                train(replicate, folder)
            rows.append(_row(name, replicate, folder))
            rate = rows[-1]["images"] / rows[-1]["seconds"]
            log.info("%s, seed %d: %.0f images/s", name, seed, rate)
    if len(hardware := sorted({row["hardware"] for row in rows})) > 1:
        raise MedscaleError(
            f"number formats were measured on {' and on '.join(hardware)}, so that their speeds "
            f"cannot be compared: delete {work} and run again on one kind of hardware"
        )
    return pd.DataFrame(rows, columns=COLUMNS), missing


def _missing(plan: RunPlan, names: Sequence[NumberFormat]) -> dict[str, str]:
    """Return the formats that the device lacks, with reasons."""
    # Another process asks, since this one must hold no memory of the GPU during the trainings.
    with ProcessPoolExecutor(1, start_method(__name__)) as pool:
        reasons = pool.submit(_reasons, plan.backend, list(names)).result()
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _reasons(backend: str, names: list[NumberFormat]) -> dict[str, str | None]:
    return {name: lacking(name, torch.device(backend)) for name in names}


def _is_finished(plan: RunPlan, shards: str, folder: Path) -> bool:
    if not (folder / TIMING).is_file():
        return False
    # Plans are compared as JSON, in which tuples are lists.
    is_same_plan = read_json(folder / "spec.json") == json.loads(plan.model_dump_json())
    record = read_json(folder / "environment.json")
    is_same_code = record["code"] == package_digest()
    return is_same_plan and is_same_code and record["inputs"]["shards"] == shards


def _row(name: str, plan: RunPlan, folder: Path) -> dict[str, Any]:
    environment, timing = (read_json(folder / f"{file}.json") for file in ("environment", "timing"))
    if environment["format"] != name:
        raise MedscaleError(
            f"{folder}: {name} was requested, but the run computed in {environment['format']}; "
            "this is a bug"
        )
    predictions = read_table(folder / "predictions.parquet")
    test = predictions[predictions["split"] == "test"]
    columns = [column for column in test if str(column).startswith("p_")]
    scores = metrics.point(test["label"].to_numpy(np.int64), test[columns].to_numpy())
    memory, joules = timing["peak_memory_mb"]["device"], timing["energy_joules"]
    return {
        "run": plan.run.model_copy(update={"amp": False}).name,
        "format": name,
        "seed": plan.seed,
        "devices": plan.run.devices,
        "global_batch": timing["global_batch"],
        "epochs": timing["epochs"],
        "images": timing["train_images"],
        "seconds": timing["seconds_per_epoch"],
        "hardware": timing["hardware"],
        "wall_seconds": timing["wall_seconds"],
        "device_mb": np.nan if memory is None else max(memory),
        "joules": np.nan if joules is None else joules,
        **{score: scores[score] for score in SCORES},
    }
