"""Images with rectangles, and trainings of detectors on them, as the rule starts them or forked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from medscale.base.files import sha256, write_json, write_parquet
from medscale.config.configuration import Config, load
from medscale.config.planning import plan
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards
from training_runs import ROOT, fork_ranks

SIZE = 64


def configured(**settings) -> Config:
    """The demo study with detection of small images."""
    detect_section = {
        "size": SIZE,
        "epochs": 2,
        "batch_size": 8,
        "lr": 3e-3,
        "augment": {"hflip": 0.5},
    } | settings
    runs = ["serial_1cpu", "serial_1cpu_yolov8n", "ddp_2cpu_yolov8n"]
    study = {"detect": detect_section, "runs": runs}
    return load(
        ROOT / "config.yaml", {"scale": "demo", "seeds": [1], "studies": {"glaucoma": study}}
    )


def make_index(folder: Path, train: int = 23, val: int = 7, test: int = 10) -> pd.DataFrame:
    """Write PNG files of noise with up to two bright rectangles each; return their index."""
    rng, rows = np.random.default_rng(0), []
    (folder / "raw").mkdir()
    for number, split in enumerate(np.repeat(["train", "val", "test"], [train, val, test])):
        pixels, boxes_of_image = rng.integers(0, 90, (SIZE, 2 * SIZE, 3), dtype=np.uint8), []
        for part in range((0, 1, 2, 1)[number % 4]):
            x, y = int(rng.integers(0, 30)) + 62 * part, int(rng.integers(0, 30))
            width, height = int(rng.integers(20, 36)), int(rng.integers(18, 34))
            pixels[y : y + height, x : x + width] = 230
            boxes_of_image.append(
                [float(x), float(y), float(min(width, 2 * SIZE - x)), float(min(height, SIZE - y))]
            )
        path = folder / "raw" / f"{number}.png"
        Image.fromarray(pixels).save(path)
        group, digest = f"g{number // 2}", sha256(path)
        rows.append((number, path.name, split, group, 2 * SIZE, SIZE, digest, boxes_of_image))
    index = pd.DataFrame(
        rows, columns=["id", "path", "split", "group", "width", "height", "sha256", "boxes"]
    )
    index["label"] = pd.Categorical(
        ["opacity" if b else "normal" for b in index["boxes"]], ["normal", "opacity"], True
    )
    write_parquet(folder / "index.parquet", index)
    return index


def make_study(folder: Path) -> SimpleNamespace:
    """A study's index and its shards for detection, made by the stage's own script."""
    index = make_index(folder)
    options = {
        "index": folder / "index.parquet",
        "raw": folder / "raw",
        "preprocess": Preprocess(size=SIZE).model_dump_json(),
        "dask": '{"workers": 1}',
        "out": folder / "shards_detect",
        "log": folder / "shards.log",
    }
    _run("shards.py", options, "--boxes")
    return SimpleNamespace(folder=folder, index=index, shards=Shards.open(folder / "shards_detect"))


def _run(script: str, options: dict[str, Any], *flags: str) -> None:
    """Run a script of the rules to its end."""
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    search = f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"
    process = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments, *flags],
        env=os.environ | {"PYTHONPATH": search},
        stderr=subprocess.PIPE,
        text=True,
        timeout=200,
    )
    assert process.returncode == 0, process.stderr


def train(
    detection_study: SimpleNamespace,
    run: str,
    name: str,
    toy: bool = True,
    gpu: bool = False,
    **settings,
) -> Path:
    """Train a run as the rule does; with ``toy`` a small network in place of YOLOv8, forked.

    With ``gpu`` the run is trained on this machine's GPU, and no CPU process stands in for it.
    """
    out = detection_study.folder / name / "seed1"
    run_plan = plan(configured(**settings), "glaucoma", run, 1)
    if gpu:
        run_plan = run_plan.model_copy(update={"stand_in": False, "backend": "cuda"})
    write_json(out / "spec.json", run_plan.model_dump(mode="json"))
    options = {
        "spec": out / "spec.json",
        "shards": detection_study.folder / "shards_detect",
        "out": out,
        "log": detection_study.folder / f"{name}.log",
    }
    if toy:
        paths = [str(path) for path in options.values()]
        fork_ranks(paths, run_plan.run.devices, "toy_detector:Detection")
    else:
        _run("train_detector.py", options)
    return out
