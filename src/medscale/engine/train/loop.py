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
from medscale.engine.parallel.model import Criterion, ParallelModel, blank, loss_sums
from medscale.engine.parallel.precision import Precision
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
    started: float  # when this process began, or the last checkpoint (``time.monotonic``)
    # called on rank 0 with each row of the history; None: not called
    log_row: Callable[[dict[str, Any]], None] | None = None
    # yield the steps of an epoch from a given one on; profiling replaces it
    steps: Callable[[int, int], Iterator[Step]] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.training.epoch

    def run(self) -> None:
        """Train until the recipe's epochs, its patience or a request to stop ends it."""
        clock = Clock(self.world.device, self.progress.spent)
        while not self.progress.stopped:
            stop, save = self._train_epoch(clock)
            with clock.kind("validation"):
                val_loss, val_accuracy = self._validate()
            self._close_epoch(clock, val_loss, val_accuracy)
            if save or stop:
                self._save(clock, stop and not self.progress.stopped)
            clock.reset()

    def _train_epoch(self, clock: Clock) -> tuple[bool, bool]:
        """Train for the rest of an epoch; return whether to stop and whether to save after it."""
        progress = self.progress
        self.model.train(True)
        self._take_wait()  # the wait of validation and warm-up is not part of the epoch
        sums = torch.zeros(3, dtype=torch.int64, device=self.world.device)
        images = 0
        for step in clock.waiting(self.steps(progress.epoch, progress.step)):
            sums += self._step(step)
            images += step.size
            progress.step += 1
            stop, save = self.guard.after(step, sums, self._steps_done(), self._position())
            if stop or save:
                self._add_to_progress(sums, images, clock)
                images = 0
                # The decision is about the step before. If the loss of this step is not finite,
                # this call ends the run, so that such weights are never saved.
                stop_later, _ = self.guard.settle()
                self._save(clock, stop or stop_later)
            clock.moved(self._take_wait())
            self.watchdog.pet()
        decision = self.guard.settle()
        self._add_to_progress(sums, images, clock)
        return decision

    def _step(self, step: Step) -> Tensor:
        """Do one optimizer step; return this rank's sums as ``ParallelModel.backward`` does."""
        plan, done = self.plan, self._steps_done()
        torch.manual_seed(step_seed(plan.seed, done, self.world.replica))
        self.optimizer.zero_grad(set_to_none=True)
        micros = [(batch.inputs, batch.labels) for batch in step.batches]
        sums = self.model.backward(micros, self.criterion, step.size)
        self.model.average_buffers(sum(len(labels) for _, labels in micros) / step.size)
        rate = learning_rate(plan, done, self.training.steps())
        if plan.recipe.schedule == "plateau":
            rate *= plateau([row["val_loss"] for row in self.progress.history])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._clip_gradients():
            self.optimizer.step()
            self.average.update()
        return sums

    def _clip_gradients(self) -> bool:
        """Undo loss scaling and limit the gradient's norm; return False to skip the step."""
        limit = self.plan.recipe.clip_norm
        if limit is None and not self.precision.scaling:
            return True
        scale = self.precision.scale
        norm = self.model.grad_norm() / scale
        if not self.precision.update(norm):
            return False
        factor = 1 / scale if limit is None else (limit / (norm + 1e-6)).clamp(max=1.0) / scale
        torch._foreach_mul_(self.model.gradients(), factor)
        return True

    def _add_to_progress(self, sums: Tensor, images: int, clock: Clock) -> None:
        """Add sums over all ranks to the progress, and set them to zero."""
        loss, correct, _ = self.world.total(sums).tolist()
        before = self.progress.sums
        self.progress.sums = [before[0] + loss, before[1] + correct, before[2] + images]
        self.progress.spent = dict(clock.settle())
        sums.zero_()

    def _validate(self) -> tuple[float, float]:
        """Return loss and accuracy over the validation split; NaN if images are not judged."""
        with self.average.used():
            sums = evaluate(self.model, self.validation, self.criterion, self.watchdog)
        loss, correct, not_finite, images = self.world.from_main(self.world.total(sums).tolist())
        mean, accuracy = means([loss, correct, images])
        return math.nan if not_finite else mean, self._if_judged(accuracy)

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
            "lr": self.optimizer.param_groups[0]["lr"],
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
        start = time.monotonic()
        self.watchdog.rest()
        with clock.kind("checkpoint"):
            self.progress.precision = self.precision.state()
            tensors = self.tensors.collect(with_best=self.progress.best_epoch > 0)
            self.progress.wall_s, self.started = self.wall_seconds(), start
            # While every step so far was skipped, the optimizer has no state and nothing is lost.
            written = bool(self.optimizer.state) and self.checkpoints.save(
                tensors, self.progress, self._steps_done()
            )
        self.guard.saved(time.monotonic() - start)
        if stop:
            reason = self.world.from_main(self.guard.reason)
            kept = "with a checkpoint" if written else "but its checkpoint could not be written"
            raise Stopped(
                f"stopped by {reason} {self._position()}, {kept}; the same command continues it"
            )

    def wall_seconds(self) -> float:
        """Return the duration of the training, with earlier starts up to their checkpoints."""
        return self.progress.wall_s + time.monotonic() - self.started

    def _take_wait(self) -> float:
        """Return the seconds that this rank waited for others since the last call."""
        waited = self.model.waited_s
        if waited is not None:
            self.model.waited_s = 0.0
        return waited or 0.0

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


def evaluate(
    model: ParallelModel, loader: Loader, criterion: Criterion, watchdog: Watchdog
) -> Tensor:
    """Return sums over this rank's share of a split, int64, shape 4.

    They are those of ``ParallelModel.backward``, and the number of images.
    """
    sums = torch.zeros(4, dtype=torch.int64, device=model.world.device)
    for logits, labels, _ in outputs(model, loader, watchdog):
        sums[:3] += loss_sums(criterion(logits, labels), criterion.correct(logits, labels))
        sums[3] += len(labels)
    return sums


def outputs(
    model: ParallelModel, loader: Loader, watchdog: Watchdog
) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """Yield logits (n,K), labels (n) and ids (n) of this rank's share of a split.

    Ranks that do not compute the output yield nothing.
    """
    model.train(False)
    for step in loader.epoch(0):
        watchdog.pet()
        for batch in step.batches:
            if len(batch.labels) == 0 and model.shares_forward:
                model.logits(blank(batch.inputs, 1))
            elif len(batch.labels) > 0:
                logits = model.logits(batch.inputs)
                if logits is not None:
                    yield logits, batch.labels, batch.ids.numpy()


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
