"""Trainings of a small network as the rule `train` starts them."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medscale.base.files import write_json
from medscale.config.configuration import load, merge
from medscale.config.planning import plan

ROOT = Path(__file__).parent.parent


@dataclass
class Training:
    """Starts replicates as the `train` rule does, as subprocesses on this machine's CPU."""

    folder: Path
    shards: Path
    settings: dict[str, Any]

    def command(self, run: str, name: str | None = None, **changes: Any) -> list[str]:
        """Write the plan of a run and return the command line that trains it into ``folder/name``."""
        name = name or run
        study = merge(
            self.settings, {key: value for key, value in changes.items() if key != "node"}
        )
        top = {"node": changes["node"]} if "node" in changes else {}
        config = load(
            ROOT / "config.yaml", {"scale": "demo", "studies": {"glaucoma": study}, **top}
        )
        write_json(
            self.folder / f"{name}.json", plan(config, "glaucoma", run, 1).model_dump(mode="json")
        )
        spec, log = self.folder / f"{name}.json", self.folder / f"{name}.log"
        arguments = [
            "--spec",
            spec,
            "--shards",
            self.shards,
            "--out",
            self.folder / name,
            "--log",
            log,
        ]
        return [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, arguments)]

    def start(self, run: str, name: str | None = None, **changes: Any) -> subprocess.Popen[str]:
        """Start a run in the background; what it says is in its log."""
        return subprocess.Popen(
            self.command(run, name, **changes), stderr=subprocess.DEVNULL, text=True
        )

    def wait_for(self, text: str, name: str, seconds: float = 60) -> None:
        """Wait until a run's log has a text."""
        log, end = self.folder / f"{name}.log", time.monotonic() + seconds
        while not (log.exists() and text in log.read_text()):
            assert time.monotonic() < end, f"{text!r} never came"
            time.sleep(0.02)

    def __call__(self, run: str, name: str | None = None, **changes: Any) -> Path:
        """Train a run to its end; its folder."""
        done = subprocess.run(
            self.command(run, name, **changes), stderr=subprocess.PIPE, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return self.folder / (name or run)


TINY = {
    "model": {"name": "tiny_cnn", "options": {"width": 8}},
    "augment": {"rotate": 15, "brightness": 0.2},
    "recipe": {"epochs": 1, "batch_size": 20, "batch_is": "global", "lr": 1e-2, "warmup_epochs": 0},
}
