"""Plans, shards and processes for benchmarks of training.

Images are random, as only times are compared.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.code import ROOT
from medscale.base.files import write_json, write_parquet
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.data.boxes import SIDES
from medscale.data.loader import Loader
from medscale.data.shards import BOXES, Shards, seal, write_chunk
from medscale.engine.plan import Augment, RunPlan


def make_shards(
    folder: Path, train: int, size: int, *, val: int = 8, test: int = 8, boxes: bool = False
) -> Path:
    """Write shards of random images of ``size`` pixels.

    The splits have ``train``, ``val`` and ``test`` images. With ``boxes`` each image has a box.
    """
    rng = np.random.default_rng(0)
    split = np.repeat(["train", "val", "test"], [train, val, test])
    total = len(split)
    for number, start in enumerate(range(0, total, 64)):
        write_chunk(
            folder, number, rng.integers(0, 255, (min(64, total - start), size, size, 3), np.uint8)
        )
    rows = pd.DataFrame({"id": np.arange(total), "label": np.arange(total) % 2, "split": split})
    rows["group"] = rows["id"].astype(str)
    if boxes:
        quarter = pd.DataFrame({"id": rows["id"], **dict.fromkeys(SIDES, 0.25)})
        write_parquet(folder / BOXES, quarter)
    seal(folder, rows, ["a", "b"], {"preprocess": {}})
    return folder


def planned(run: str, **settings: Any) -> RunPlan:
    """Return the plan of a glaucoma run with the full network and the same batch on any devices."""
    recipe = {"batch_is": "global", "lr_scaling": "none"} | settings.pop("recipe", {})
    demo = {"model": {"options": {"width": 64}}, "recipe": recipe} | settings
    return plan(
        load(ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": demo}}),
        "glaucoma",
        run,
        1,
    )


def training_loader(
    shards: Shards, batch: int, augment: Augment, seed: int = 0, channels_last: bool = True
) -> Loader:
    """Return the package's loader of the training images for one process."""
    return Loader(
        shards,
        "train",
        global_batch=batch,
        replicas=1,
        replica=0,
        seed=seed,
        training=True,
        augment=augment,
        channels_last=channels_last,
    )


def write_plan(path: Path, plan: RunPlan) -> Path:
    """Write a plan as spec.json."""
    write_json(path, plan.model_dump(mode="json"))
    return path


def arguments(options: Mapping[str, object]) -> list[str]:
    """Return the words of a command line for options and their values."""
    return [str(part) for option in options.items() for part in option]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment, in which Python finds package and benchmarks."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **variables}
