"""The progress of a replicate, apart from its tensors: the JSON part of a checkpoint."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel

from medscale.base.provenance import hardware
from medscale.engine.parallel.model import FIXED


class Progress(BaseModel):
    """Position, decisions and records, the same on every rank."""

    epoch: int = 0  # number of the current epoch, from 0
    step: int = 0  # number of the next step within the epoch
    # of the epoch so far, over all ranks: losses in units of 1/FIXED, correct images, images
    sums: list[int] = [0, 0, 0]
    spent: dict[str, float] = {}  # seconds of the epoch so far by kind
    history: list[dict[str, Any]] = []  # a row for each finished epoch
    best_epoch: int = 0  # number of the epoch whose weights are kept, from 1; 0: none yet
    best_loss: float | None = None  # its validation loss
    precision: dict[str, float] = {}  # state of the loss scaling
    wall_s: float = 0.0  # wall time, seconds, without work that an interruption lost
    device_s: float = 0.0  # device time, seconds: each second counts once for each process
    restarts: int = 0  # how often training was continued from a checkpoint
    processes: int = 0  # that train now
    fewest: int = 0  # smallest number of processes that trained a part of the epoch so far
    machines: list[str] = []  # hardware that trained a part of the epoch so far, the present last
    # ``provenance.conditions`` of the training so far: one entry for each change
    conditions: list[dict[str, Any]] = []
    stopped: str = ""  # why training ended, "epochs" or "patience"; empty while it runs

    def steps_done(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps since the beginning."""
        return self.epoch * steps_per_epoch + self.step

    def count_time(self, seconds: float) -> None:
        """Add wall time of the present processes, in seconds, to wall and device time."""
        self.wall_s += seconds
        self.device_s += seconds * self.processes

    def go_on(self, processes: int) -> None:
        """Continue from a checkpoint with a number of processes, which may differ from before."""
        self.restarts += 1
        self.processes = processes
        self.fewest = min(self.fewest, processes) if self.step else processes

    def note(self, conditions: dict[str, Any]) -> None:
        """Note the conditions of the training from here on (``provenance.conditions``)."""
        if not self.conditions or self.conditions[-1] != conditions:
            self.conditions.append(conditions)
        name = hardware(conditions)
        before = [other for other in self.machines if other != name] if self.step else []
        self.machines = [*before, name]

    def close_epoch(
        self, row: dict[str, Any], patience: int | None, epochs: int, *, ranks: bool = True
    ) -> bool:
        """Add an epoch to the history, and decide whether training is over.

        Args:
            row: the epoch's row of the history.
            patience: epochs without a better one until training stops; None: no limit.
            epochs: largest number of epochs.
            ranks: whether the smallest validation loss is best; otherwise the last epoch is.

        Returns:
            Whether the epoch is the best so far.
        """
        devices = {"processes": self.fewest, "hardware": " and ".join(self.machines)}
        self.history.append({**row, **devices})
        self.fewest, self.machines = self.processes, self.machines[-1:]
        smaller = not ranks or self.best_loss is None or row["val_loss"] < self.best_loss
        better = math.isfinite(row["val_loss"]) and smaller
        if better:
            self.best_epoch, self.best_loss = row["epoch"], row["val_loss"]
        self.epoch, self.step, self.sums, self.spent = self.epoch + 1, 0, [0, 0, 0], {}
        if patience is not None and self.epoch - self.best_epoch >= patience:
            self.stopped = "patience"
        elif self.epoch >= epochs:
            self.stopped = "epochs"
        return better


def means(sums: list[int]) -> tuple[float, float]:
    """Return mean loss and accuracy from sums of losses, correct images and images."""
    loss, correct, images = sums
    return loss / FIXED / images, correct / images
