"""Shared fixtures: small shard sets that a network can learn in seconds."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medscale.config import load, merge, plan
from medscale.data.shards import seal, write_chunk
from medscale.files import write_json

ROOT = Path(__file__).parent.parent


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a shard set of bright and dark noisy images and returns its folder."""

    def make(train: int = 40, val: int = 10, test: int = 10, size: int = 16, classes: int = 2, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        total = train + val + test
        labels = rng.integers(0, classes, total)
        base = 60 + 120 * labels / max(classes - 1, 1)
        images = np.clip(base[:, None, None, None] + rng.normal(0, 40, (total, size, size, 3)), 0, 255)
        folder = tmp_path / f"shards-{total}-{seed}"
        folder.mkdir()
        for number, start in enumerate(range(0, total, 32)):
            write_chunk(folder, number, images[start : start + 32].astype(np.uint8))
        split = np.repeat(["train", "val", "test"], [train, val, test])
        rows = pd.DataFrame(
            {"id": np.arange(total), "label": labels, "split": split, "group": np.arange(total).astype(str)}
        )
        rows["age"] = np.where(rng.random(total) < 0.2, np.nan, 40 + 10 * labels + rng.normal(0, 5, total))
        rows["sex"] = pd.Series(rng.choice(["f", "m"], total), dtype="str")
        seal(folder, rows, [f"class{i}" for i in range(classes)], {"preprocess": {}})
        return folder

    return make


@dataclass
class Training:
    """Starts replicates as the `train` rule does, as subprocesses on this machine's CPU."""

    folder: Path
    shards: Path
    settings: dict[str, Any]

    def command(self, run: str, name: str | None = None, **changes: Any) -> list[str]:
        """Write the plan of a run and return the command line that trains it into ``folder/name``."""
        name = name or run
        study = merge(self.settings, {key: value for key, value in changes.items() if key != "node"})
        top = {"node": changes["node"]} if "node" in changes else {}
        config = load(ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": study}, **top})
        write_json(self.folder / f"{name}.json", plan(config, "glaucoma", run, 1).model_dump(mode="json"))
        spec, log = self.folder / f"{name}.json", self.folder / f"{name}.log"
        arguments = ["--spec", spec, "--shards", self.shards, "--out", self.folder / name, "--log", log]
        return [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, arguments)]

    def start(self, run: str, name: str | None = None, **changes: Any) -> subprocess.Popen[str]:
        """Start a run in the background; what it says is in its log."""
        return subprocess.Popen(self.command(run, name, **changes), stderr=subprocess.DEVNULL, text=True)

    def wait_for(self, text: str, name: str, seconds: float = 60) -> None:
        """Wait until a run's log has a text."""
        log, end = self.folder / f"{name}.log", time.monotonic() + seconds
        while not (log.exists() and text in log.read_text()):
            assert time.monotonic() < end, f"{text!r} never came"
            time.sleep(0.02)

    def __call__(self, run: str, name: str | None = None, **changes: Any) -> Path:
        """Train a run to its end; its folder."""
        done = subprocess.run(self.command(run, name, **changes), stderr=subprocess.PIPE, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return self.folder / (name or run)


TINY = {
    "model": {"name": "tiny_cnn", "options": {"width": 8}},
    "augment": {"rotate": 15, "brightness": 0.2},
    "recipe": {"epochs": 1, "batch_size": 20, "batch_is": "global", "lr": 1e-2, "warmup_epochs": 0},
}


@pytest.fixture
def training(tmp_path: Path, make_shards: Callable[..., Path]) -> Training:
    """Trains a small network without batch norm on 37 images in two uneven steps, unless told otherwise."""
    return Training(tmp_path, make_shards(train=37, val=11, test=9), TINY)


@pytest.fixture
def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
