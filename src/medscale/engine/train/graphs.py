"""Capture of a replicate's training and evaluation as CUDA graphs, before training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import torch

from medscale.base.log import log
from medscale.data.loader import Loader, Shape
from medscale.engine.parallel.world import World
from medscale.engine.train.capture import NotCaptured, Recorder
from medscale.engine.train.loop import Trainer
from medscale.engine.train.shapes import FixedShapes
from medscale.engine.train.state import unchanged

# Calls of a shape before it is captured. DDP measures itself in its first ten steps, and waits for
# the device to do so.
WARM_UP = 11
EVALUATION_WARM_UP = 2
# Steps of a shape from which on its capture saves more time than it takes. A capture takes the time
# of about ten steps. On one H200 a graph's step took 0.21 (medical_cnn) to 0.59 (EfficientNet-B3)
# of the time of an eager step (docs/gpu.csv), so that a capture pays from 13 to 24 steps on.
FEWEST = 16


def capture(trainer: Trainer) -> bool:
    """Capture the optimizer step and the validation, each for its (at most two) shapes.

    Weights and all other state are restored after the trial steps. All ranks call this.

    Returns:
        Whether there are graphs: not on a CPU, and not if ``recipe.graph`` is off.

    Raises:
        NotCaptured: with the cause, on all ranks. The trainer cannot be used afterwards; make a new
            one.
    """
    model, graph = trainer.model, trainer.plan.recipe.graph
    if trainer.world.device.type != "cuda" or graph == "off":
        return False
    if reason := model.not_captured or (model.not_tried if graph == "auto" else ""):
        raise NotCaptured(reason)
    start = monotonic()
    trainer.recorder = recorder = Recorder(trainer.world.device)
    shapes = trainer.training.shapes()
    trainer.watchdog.rest()
    with unchanged(trainer.update):
        warm_up(trainer, shapes)
        warm_s = monotonic() - start
        causes = [trainer.optimize.check(shape, recorder) for shape in shapes]
        _together(trainer.world, lambda: _raise_first(causes))
        _together(trainer.world, lambda: _capture_all(trainer.optimize, shapes, recorder))
    epochs = trainer.plan.recipe.epochs
    _together(trainer.world, lambda: capture_evaluation(trainer, trainer.validation, epochs))
    trainer.watchdog.rest()
    log.info(
        "captured steps of %s images as CUDA graphs in %.1f s, of which %.1f s are %s",
        " and ".join(str(shape.size) for shape in shapes),
        monotonic() - start,
        warm_s,
        "compilation and warm-up" if trainer.plan.recipe.compile == "on" else "warm-up",
    )
    return True


def warm_up(trainer: Trainer, shapes: dict[Shape, int]) -> None:
    """Train on zeros of each shape, which loads, compiles and chooses kernels."""
    trainer.model.train(True)
    for shape in shapes:
        torch.manual_seed(trainer.plan.seed)
        trainer.optimize.warm_up(shape, WARM_UP)


def capture_evaluation(trainer: Trainer, loader: Loader, epochs: int = 1) -> None:
    """Capture the evaluation of a split for each shape with many steps; see ``capture``.

    NCCL requires that a collective is captured on all ranks or on none. With FSDP all shapes are
    therefore captured, or none where the split has few steps or a rank has no image in some step.

    Args:
        trainer: the replicate, with a recorder.
        loader: this rank's share of the split.
        epochs: how often the split is evaluated.
    """
    assert trainer.recorder is not None
    shapes = loader.shapes()
    if trainer.model.shares_forward:
        shapes = dict.fromkeys(shapes, loader.steps() if loader.smallest_share else 0)
    frequent = [
        shape for shape, steps in shapes.items() if sum(shape.micros) and steps * epochs >= FEWEST
    ]
    trainer.model.train(False)
    for shape in frequent:
        trainer.logits.warm_up(shape, EVALUATION_WARM_UP)
    _capture_all(trainer.logits, frequent, trainer.recorder)


def capture_prediction(trainer: Trainer, loader: Loader) -> None:
    """Capture the prediction of a split, if the training was; otherwise it runs without a graph."""
    if trainer.recorder is None:
        return
    try:
        _together(trainer.world, lambda: capture_evaluation(trainer, loader))
    except NotCaptured as cause:
        trainer.logits.discard()  # all ranks call the network, or none does
        log.info("the prediction is not captured as a CUDA graph: %s", cause)


def release(trainer: Trainer) -> None:
    """Free all graphs: NCCL cannot leave a group while a graph holds its collectives."""
    trainer.optimize.discard()
    trainer.logits.discard()
    trainer.recorder = None


def _capture_all(function: FixedShapes[Any], shapes: Iterable[Shape], recorder: Recorder) -> None:
    for shape in shapes:
        function.capture(shape, recorder)


def _raise_first(causes: list[str | None]) -> None:
    for cause in causes:
        if cause is not None:
            raise NotCaptured(cause)


def _together(world: World, work: Callable[[], None]) -> None:
    """Do work; if it cannot be captured on one rank, raise NotCaptured with its cause on all.

    NCCL requires that a collective is captured on all ranks or on none.
    """
    cause = ""
    try:
        work()
    except NotCaptured as error:
        cause = str(error)
    causes = world.gather(cause) or [""]  # of all ranks, on rank 0
    if cause := world.from_main(next(filter(None, causes), "")):
        raise NotCaptured(cause)
