"""How far a replicate has come, apart from its tensors: what a checkpoint keeps as JSON."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel

from medscale.engine.parallel.strategies import FIXED


class Progress(BaseModel):
    """Position, decisions and records; the same on every rank.

    Attributes:
        epoch: the epoch that goes on, from 0.
        step: the next step within it.
        sums: of the epoch so far, over all ranks: losses in units of 1/FIXED, correct images, images.
        spent: seconds of the epoch so far by kind.
        history: a row for each finished epoch.
        best_epoch: number of the epoch whose weights are kept, from 1; 0: none yet.
        best_loss: that loss.
        precision: state of the loss scaling.
        wall_s: seconds that it took up to here.
        restarts: how often the run was started again.
        stopped: why training ended: epochs, patience; empty while it goes on.
    """

    epoch: int = 0
    step: int = 0
    sums: list[int] = [0, 0, 0]
    spent: dict[str, float] = {}
    history: list[dict[str, Any]] = []
    best_epoch: int = 0
    best_loss: float | None = None
    precision: dict[str, float] = {}
    wall_s: float = 0.0
    restarts: int = 0
    stopped: str = ""

    def steps_done(self, steps_per_epoch: int) -> int:
        """Optimizer steps since the beginning."""
        return self.epoch * steps_per_epoch + self.step

    def close_epoch(
        self, row: dict[str, Any], patience: int | None, epochs: int, *, ranks: bool = True
    ) -> bool:
        """Enter an epoch's row, and decide: is it the best, is training over? True when it is the best.

        The smallest validation loss is the best one's; where losses do not rank epochs, the last one is the best.
        """
        self.history.append(row)
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
    """Mean loss and accuracy from sums over images."""
    loss, correct, images = sums
    return loss / FIXED / images, correct / images
