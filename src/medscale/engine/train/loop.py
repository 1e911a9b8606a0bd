"""The training loop: reads top to bottom, the same for every strategy, device and number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medscale.base.errors import Stopped
from medscale.base.log import log
from medscale.data.loader import Loader, Step
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies import Criterion, Strategy, blank, measured
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.train.checkpoint import Checkpoints
from medscale.engine.train.clock import Clock
from medscale.engine.train.ema import Average
from medscale.engine.train.guard import Guard, Watchdog
from medscale.engine.train.progress import Progress, means
from medscale.engine.train.recipe import learning_rate, plateau
from medscale.engine.train.state import Tensors


@dataclass
class Trainer:
    """Everything a replicate's training needs on one rank."""

    plan: RunPlan
    world: World
    strategy: Strategy
    precision: Precision
    optimizer: torch.optim.Optimizer
    average: Average
    criterion: Criterion
    training: Loader
    validation: Loader
    tensors: Tensors
    checkpoints: Checkpoints
    progress: Progress
    guard: Guard
    watchdog: Watchdog
    since: float
    note: Callable[[dict[str, Any]], None] = lambda row: (
        None
    )  # further records of an epoch, on rank 0
    steps: Callable[[int, int], Iterator[Step]] = field(
        init=False
    )  # of an epoch, from one on; profiles have their own

    def __post_init__(self) -> None:
        self.steps = self.training.epoch

    def run(self) -> None:
        """All epochs that are left, until the recipe, its patience or a signal ends them."""
        clock, progress = Clock(self.world.device, self.progress.spent), self.progress
        while not progress.stopped:
            self.strategy.train(True)
            self._waited()  # what validation and warm-up waited is not this epoch's
            sums = torch.zeros(3, dtype=torch.int64, device=self.world.device)
            images = 0
            for step in clock.waiting(self.steps(progress.epoch, progress.step)):
                sums += self._step(step)
                images += step.size
                progress.step += 1
                stop, save = self.guard.after(
                    step, sums, progress.steps_done(self.training.steps()), self._where()
                )
                if stop or save:
                    images = self._carry(sums, images, clock)
                    late, _ = (
                        self.guard.settle()
                    )  # this step's own loss: one that is not finite ends the run unsaved
                    self._save(clock, stop or late)
                clock.moved(self._waited())
                self.watchdog.pet()
            stop, save = self.guard.settle()
            self._carry(sums, images, clock)
            with clock.kind("validation"):
                validation = self._validate()
            self._close(clock, validation)
            if save or stop:
                self._save(clock, stop and not progress.stopped)
            clock.reset()

    def _step(self, step: Step) -> Tensor:
        """One optimizer step; returns this rank's sums."""
        plan, done = self.plan, self.progress.steps_done(self.training.steps())
        torch.manual_seed(step_seed(plan.seed, done, self.world.replica))
        self.optimizer.zero_grad(set_to_none=True)
        micros = [(batch.inputs, batch.labels) for batch in step.batches]
        sums = self.strategy.backward(micros, self.criterion, step.size)
        self.strategy.average_buffers(sum(len(labels) for _, labels in micros) / step.size)
        rate = learning_rate(plan, done, self.training.steps())
        if plan.recipe.schedule == "plateau":
            rate *= plateau([row["val_loss"] for row in self.progress.history])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._clip():
            self.optimizer.step()
            self.average.update()
        return sums

    def _clip(self) -> bool:
        """Undo loss scaling and bound the gradient's norm; False when the step must be skipped."""
        limit = self.plan.recipe.clip_norm
        if limit is None and not self.precision.scaling:
            return True
        scale = self.precision.scale
        norm = self.strategy.grad_norm() / scale
        if not self.precision.update(norm):
            return False
        factor = 1 / scale if limit is None else (limit / (norm + 1e-6)).clamp(max=1.0) / scale
        torch._foreach_mul_(self.strategy.gradients(), factor)
        return True

    def _validate(self) -> tuple[float, float]:
        """Mean loss and accuracy (NaN where nothing is judged) over the validation split, each image once."""
        with self.average.used():
            sums = evaluate(self.strategy, self.validation, self.criterion, self.watchdog)
        loss, correct, broken, images = self.world.from_main(self.world.total(sums).tolist())
        mean, accuracy = means([loss, correct, images])
        return (math.nan if broken else mean), (accuracy if self.criterion.judges else math.nan)

    def _carry(self, sums: Tensor, images: int, clock: Clock) -> int:
        """Move what was summed since the last time into the progress, over all ranks; 0 images are left to carry."""
        loss, correct, _ = self.world.total(sums).tolist()
        before = self.progress.sums
        self.progress.sums = [before[0] + loss, before[1] + correct, before[2] + images]
        self.progress.spent = dict(clock.settle())
        sums.zero_()
        return 0

    def _close(self, clock: Clock, validation: tuple[float, float]) -> None:
        """Enter the epoch into the history, tell it, and decide what follows from it."""
        progress, recipe = self.progress, self.plan.recipe
        loss, accuracy = means(progress.sums)
        spent, images = clock.settle(), self.training.images
        seconds = spent["data"] + spent["compute"] + spent["communication"]
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": loss,
            "train_accuracy": accuracy if self.criterion.judges else math.nan,
            "val_loss": validation[0],
            "val_accuracy": validation[1],
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "images_per_second": images / seconds,
            **{f"{kind}_s": value for kind, value in spent.items()},
        }
        progress.precision = self.precision.state()
        ranks = self.criterion.ranks
        if progress.close_epoch(
            self.world.from_main(row), recipe.patience, recipe.epochs, ranks=ranks
        ):
            with self.average.used():
                self.tensors.keep_best()
        if self.world.is_main:
            tell(progress, recipe.epochs)
            self.note(progress.history[-1])

    def _save(self, clock: Clock, stop: bool) -> None:
        """Write a checkpoint; at a request to stop, end with it."""
        start = time.monotonic()
        self.watchdog.rest()
        with clock.kind("checkpoint"):
            self.progress.precision = self.precision.state()
            tensors = self.tensors.collect(with_best=self.progress.best_epoch > 0)
            done = self.progress.steps_done(self.training.steps())
            self.progress.wall_s, self.since = self.wall_seconds(), start
            begun = bool(
                self.optimizer.state
            )  # not while each step so far was skipped: there is nothing to keep
            written = begun and self.checkpoints.save(tensors, self.progress, done)
        self.guard.saved(time.monotonic() - start)
        if stop:
            reason = self.world.from_main(self.guard.reason)
            kept = "with a checkpoint" if written else "but its checkpoint could not be written"
            raise Stopped(f"stopped by {reason} {self._where()}, {kept}; the same command goes on")

    def wall_seconds(self) -> float:
        """Seconds that the training took, with those before a restart up to the checkpoint."""
        return self.progress.wall_s + time.monotonic() - self.since

    def _waited(self) -> float:
        waited = self.strategy.waited_s
        if waited is not None:
            self.strategy.waited_s = 0.0
        return waited or 0.0

    def _where(self) -> str:
        return f"in epoch {self.progress.epoch + 1} after step {self.progress.step} of {self.training.steps()}"


def evaluate(
    strategy: Strategy, loader: Loader, criterion: Criterion, watchdog: Watchdog
) -> Tensor:
    """Sums over this rank's share of a split: as ``Strategy.backward``, and the number of images; int64, shape 4."""
    sums = torch.zeros(4, dtype=torch.int64, device=strategy.world.device)
    for logits, labels, _ in outputs(strategy, loader, watchdog):
        sums[:3] += measured(criterion(logits, labels), criterion.correct(logits, labels))
        sums[3] += len(labels)
    return sums


def outputs(
    strategy: Strategy, loader: Loader, watchdog: Watchdog
) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """Logits (n,K), labels (n) and ids (n) of this rank's share of a split, on ranks that hold the output."""
    strategy.train(False)
    for step in loader.epoch(0):
        watchdog.pet()
        for batch in step.batches:
            if len(batch.labels) == 0 and strategy.shares_forward:
                strategy.logits(blank(batch.inputs, 1))
            elif len(batch.labels) > 0:
                logits = strategy.logits(batch.inputs)
                if logits is not None:
                    yield logits, batch.labels, batch.ids.numpy()


def step_seed(seed: int, step: int, replica: int) -> int:
    """Seed of a replica's random numbers (dropout) in a step: a restart needs no generator's state."""
    return (seed * 1_000_003 + step) * 65_537 + replica


def tell(progress: Progress, epochs: int) -> None:
    """One line about the epoch that ended."""
    row = progress.history[-1]
    left = (
        0
        if progress.stopped
        else (epochs - progress.epoch) * (row["seconds"] + row["validation_s"])
    )
    best = "  best so far" if progress.best_epoch == row["epoch"] else ""
    log.info(
        "epoch %d/%d  train %s  |  val %s  |  %.0f images/s, %s left%s",
        row["epoch"],
        epochs,
        *(_in_words(row[f"{split}_loss"], row[f"{split}_accuracy"]) for split in ("train", "val")),
        row["images_per_second"],
        f"{left / 60:.1f} min" if left > 90 else f"{left:.0f} s",
        best,
    )


def _in_words(loss: float, accuracy: float) -> str:
    return f"loss {loss:.4f}" + (
        "" if math.isnan(accuracy) else f" accuracy {100 * accuracy:.1f} %"
    )
