"""The training loop, the same for every strategy, device and number of processes."""

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
from medscale.engine.parallel.model import (
    SUMS,
    Criterion,
    ParallelModel,
    blank,
    loss_sums,
    whole_sums,
)
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.waits import Spans
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.train.capture import Recorder
from medscale.engine.train.checkpoint import Checkpoints
from medscale.engine.train.clock import Clock
from medscale.engine.train.ema import Average
from medscale.engine.train.guard import Guard, Watchdog
from medscale.engine.train.progress import Progress, means
from medscale.engine.train.recipe import learning_rate, plateau, set_rate
from medscale.engine.train.shapes import FixedShapes
from medscale.engine.train.state import Tensors
from medscale.engine.train.step import OptimizerStep


@dataclass
class Trainer:
    """All objects that the training of a replicate needs on one rank."""

    plan: RunPlan
    world: World
    model: ParallelModel
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
    started: float  # ``time.monotonic`` at the start or at the last ``count_time``
    # called on rank 0 with each row of the history; None: not called
    log_row: Callable[[dict[str, Any]], None] | None = None
    # yields the steps of an epoch, beginning with a given step; profiling replaces it
    steps: Callable[[int, int], Iterator[Step]] = field(init=False)
    update: OptimizerStep = field(init=False)  # an optimizer step, and the sums of its losses
    optimize: FixedShapes[Spans] = field(init=False)  # call ``update``, or replay it
    logits: FixedShapes[Tensor | None] = field(init=False)  # the outputs of a step's images
    recorder: Recorder | None = None  # captures graphs; None: nothing is captured

    def __post_init__(self) -> None:
        self.steps = self.training.epoch
        self.update = OptimizerStep(
            self.model,
            self.optimizer,
            self.average,
            self.precision,
            self.criterion,
            self.plan.recipe.clip_norm,
        )
        self.optimize = FixedShapes(self.update, self.training.blank)
        self.logits = FixedShapes(
            lambda batches, _: self.model.logits(batches[0].inputs),
            self.validation.blank,
            labelled=False,
        )

    def run(self) -> None:
        """Train until the recipe's epochs, its patience or a request to stop ends it."""
        self.training.load()  # once a run, so that no epoch waits for it
        self.world.meet()  # otherwise the first epoch would contain the wait for slower ranks
        clock = Clock(self.world.device, self.progress.spent)
        while not self.progress.stopped:
            stop, save = self._train_epoch(clock)
            with clock.kind("validation"):
                val_loss, val_accuracy = self._validate()
            self._close_epoch(clock, val_loss, val_accuracy)
            clock.reset()
            if save or stop:
                self._save(clock, stop and not self.progress.stopped)

    def _train_epoch(self, clock: Clock) -> tuple[bool, bool]:
        """Train for the rest of an epoch; return whether to stop and whether to save after it."""
        progress, sums = self.progress, self.update.sums
        self.model.train(True)
        self.model.waits.take(0)  # the wait of validation and warm-up is not part of the epoch
        sums.zero_()
        images = steps = 0
        source = self.steps(progress.epoch, progress.step)
        for step in clock.waiting(source, self.training.waited):
            self._step(step)
            images, steps = images + step.size, steps + 1
            progress.step += 1
            stop, save = self.guard.after(step, sums, self._steps_done(), self._position())
            if stop or save:
                self._add_to_progress(images, steps, clock)
                images = steps = 0
                # The decision is about the step before. If the loss of this step is not finite,
                # this call ends the run, so that such weights are never saved.
                stop_later, _ = self.guard.settle()
                self._save(clock, stop or stop_later)
            self.watchdog.pet()
        decision = self.guard.settle()
        self._add_to_progress(images, steps, clock)
        return decision

    def _step(self, step: Step) -> None:
        """Do one optimizer step; the host does not wait for it."""
        steps_done = self._steps_done()
        torch.manual_seed(step_seed(self.plan.seed, steps_done, self.world.replica))
        set_rate(self.optimizer, self._rate(steps_done))
        self.model.waits.spans = self.optimize(step)

    def _rate(self, steps_done: int) -> float:
        """Return the learning rate of the step after ``steps_done`` steps."""
        rate = learning_rate(self.plan, steps_done, self.training.steps())
        if self.plan.recipe.schedule == "plateau":
            rate *= plateau([row["val_loss"] for row in self.progress.history])
        return rate

    def _add_to_progress(self, images: int, steps: int, clock: Clock) -> None:
        """Add sums over all ranks to the progress, and set them to zero; wait for the device."""
        loss, correct, _ = whole_sums(self.world.total(self.update.sums).tolist())
        before = self.progress.sums
        self.progress.sums = [before[0] + loss, before[1] + correct, before[2] + images]
        clock.moved(self.model.waits.take(steps))
        self.progress.spent = dict(clock.settle())
        self.update.sums.zero_()

    def _validate(self) -> tuple[float, float]:
        """Return loss and accuracy over the validation split; NaN if images are not judged."""
        with self.average.used():
            sums = self._evaluate()
        *parts, images = self.world.from_main(self.world.total(sums).tolist())
        loss, correct, not_finite = whole_sums(parts)
        mean, accuracy = means([loss, correct, images])
        return math.nan if not_finite else mean, self._if_judged(accuracy)

    def _evaluate(self) -> Tensor:
        """Return the sums of this rank's share of the validation split, int64, shape SUMS + 1.

        These are the sum of ``loss_sums`` over batches, and the number of images.
        """
        sums = torch.zeros(SUMS + 1, dtype=torch.int64, device=self.world.device)
        for logits, labels, _ in self.outputs(self.validation):
            if logits is None:
                self.criterion.join()
                continue
            correct = self.criterion.correct(logits, labels)
            sums[:SUMS] += loss_sums(self.criterion(logits, labels), correct)
            sums[SUMS] += len(labels)
        return sums

    def outputs(self, loader: Loader) -> Iterator[tuple[Tensor | None, Tensor, np.ndarray]]:
        """Yield logits (n,K), labels (n) and ids (n) of this rank's share of a split.

        Of a batch without images on this rank, the logits are None. Ranks that do not compute the
        output yield nothing else. Logits are yielded after the next ones are requested, so that a
        GPU works while the host reads them.
        """
        self.model.train(False)
        pending: list[tuple[Tensor | None, Tensor, np.ndarray]] = []
        for step in loader.epoch(0):
            self.watchdog.pet()
            batch, logits = step.batches[0], None
            if len(batch.labels) > 0:
                logits = self.logits(step)
            elif self.model.shares_forward:
                self.model.logits(blank(batch.inputs, 1))
            yield from pending
            pending = []
            if logits is not None or len(batch.labels) == 0:
                copy = None if logits is None else logits.clone()
                pending = [(copy, batch.labels, batch.ids.numpy())]
        yield from pending

    def _close_epoch(self, clock: Clock, val_loss: float, val_accuracy: float) -> None:
        """Add the epoch to the history, keep its weights if it is the best, and log it."""
        progress, recipe = self.progress, self.plan.recipe
        loss, accuracy = means(progress.sums)
        spent = clock.settle()
        seconds = spent["data"] + spent["compute"] + spent["communication"]
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": loss,
            "train_accuracy": self._if_judged(accuracy),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "lr": self._rate(self._steps_done() - 1),
            "seconds": seconds,
            "images_per_second": self.training.images / seconds,
            **{f"{kind}_s": value for kind, value in spent.items()},
        }
        row = self.world.from_main(row)
        progress.precision = self.precision.state()
        if progress.close_epoch(row, recipe.patience, recipe.epochs, ranks=self.criterion.ranks):
            with self.average.used():
                self.tensors.keep_best()
        if self.world.is_main:
            log_epoch(progress, recipe.epochs)
            if self.log_row is not None:
                self.log_row(progress.history[-1])

    def _save(self, clock: Clock, stop: bool) -> None:
        """Write a checkpoint; if asked to stop, end the training."""
        start = self.count_time()
        self.watchdog.rest()
        with clock.kind("checkpoint"):
            self.progress.precision = self.precision.state()
            tensors = self.tensors.collect(with_best=self.progress.best_epoch > 0)
            # While every step so far was skipped, the optimizer has no state and nothing is lost.
            is_saved = bool(self.optimizer.state) and self.checkpoints.save(
                tensors, self.progress, self._steps_done()
            )
        self.guard.saved(time.monotonic() - start)
        if stop:
            reason = self.world.from_main(self.guard.reason)
            note = "with a checkpoint" if is_saved else "but its checkpoint could not be written"
            raise Stopped(
                f"stopped by {reason} {self._position()}, {note}; the same command continues it"
            )

    def count_time(self) -> float:
        """Add the time since the start, or the last call, to the progress; return the time now."""
        now = time.monotonic()
        self.progress.count_time(now - self.started)
        self.started = now
        return now

    def _if_judged(self, accuracy: float) -> float:
        return accuracy if self.criterion.judges else math.nan

    def _steps_done(self) -> int:
        return self.progress.steps_done(self.training.steps())

    def _position(self) -> str:
        """Return the position in words, such as "in epoch 2 after step 3 of 9"."""
        progress = self.progress
        return (
            f"in epoch {progress.epoch + 1} after step {progress.step} of {self.training.steps()}"
        )


def step_seed(seed: int, step: int, replica: int) -> int:
    """Return the seed of a replica's random numbers (dropout) in a step.

    As each step sets its seed, a checkpoint needs no state of the random generator.
    """
    return (seed * 1_000_003 + step) * 65_537 + replica


def log_epoch(progress: Progress, epochs: int) -> None:
    """Log one line about the epoch that ended."""
    row = progress.history[-1]
    left = 0 if progress.stopped else epochs - progress.epoch
    left_s = left * (row["seconds"] + row["validation_s"])
    log.info(
        "epoch %d/%d  train %s  |  val %s  |  %.0f images/s, %s left%s",
        row["epoch"],
        epochs,
        *(_scores(row[f"{split}_loss"], row[f"{split}_accuracy"]) for split in ("train", "val")),
        row["images_per_second"],
        f"{left_s / 60:.1f} min" if left_s > 90 else f"{left_s:.0f} s",
        "  best so far" if progress.best_epoch == row["epoch"] else "",
    )


def _scores(loss: float, accuracy: float) -> str:
    judged = "" if math.isnan(accuracy) else f" accuracy {100 * accuracy:.1f} %"
    return f"loss {loss:.4f}{judged}"
