"""One replicate from its plan to its run folder: builds everything, trains, predicts, writes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.base.files import digest, read_json, write_json
from medscale.base.log import log
from medscale.base.provenance import environment
from medscale.data.loader import Loader
from medscale.data.shards import Shards
from medscale.engine.models.registry import stages
from medscale.engine.parallel.cut import Block, Cut, measure
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.world import World
from medscale.engine.parallel.wrap import wrap
from medscale.engine.plan import RunPlan
from medscale.engine.train import records
from medscale.engine.train.board import board
from medscale.engine.train.checkpoint import Checkpoints
from medscale.engine.train.clock import Meter, device_memory_mb, host_memory_mb
from medscale.engine.train.ema import Average
from medscale.engine.train.guard import Guard, Watch, Watchdog
from medscale.engine.train.loop import Trainer, outputs
from medscale.engine.train.progress import Progress
from medscale.engine.train.recipe import optimizer
from medscale.engine.train.state import Tensors
from medscale.engine.train.task import Task, loader


def train(plan: RunPlan, shards: Shards, task: Task, out: Path, world: World, watch: Watch) -> None:
    """Train a replicate of a task, from its last checkpoint if there is one, and write its run folder.

    Raises:
        Stopped: when it was asked to stop; it goes on when it is started again.
        MedscaleError: when the loss is not finite, memory runs out, or plan and shards do not fit.
    """
    start, meter = monotonic(), Meter(world.device)
    made = environment(plan, {"shards": shards.meta["digest"]}) if world.is_main else {}
    trainer = assemble(plan, shards, task, out, world, watch, start)
    resumed = restore(trainer)
    if world.is_main:
        log.info("%s", _headline(plan, trainer, resumed))
    try:
        with ExitStack() as logs:
            if plan.tensorboard and world.is_main:
                trainer.note = logs.enter_context(
                    board(out / "tensorboard", trainer.progress.epoch)
                )
            trainer.run()
        trainer.watchdog.rest()
        trainer.tensors.use_best()
        predicted = [_predict(trainer, shards, task, split) for split in ("val", "test")]
        trainer.watchdog.rest()
        weights = trainer.tensors.whole(world)
        measured = _measured(trainer, meter)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        raise explained(error, plan) from error
    if world.is_main:
        assert weights is not None
        assert measured is not None
        table = pd.concat([part for part in predicted if part is not None], ignore_index=True)
        timing = records.timing(plan, trainer.progress, trainer.training.images, measured)
        records.write(
            out, trainer.progress, weights=weights, predicted=table, timing=timing, made=made
        )
    trainer.checkpoints.discard()
    trainer.watchdog.dismiss()


def assemble(
    plan: RunPlan, shards: Shards, task: Task, out: Path, world: World, watch: Watch, start: float
) -> Trainer:
    """Everything a replicate needs on this rank, at its beginning; ``start`` is when it was (time.monotonic)."""
    recipe = plan.recipe
    torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)
    # Only of use for finding faults, and each new tensor would be written once more.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not recipe.deterministic
    watchdog = Watchdog(world.rank, plan.parallel.timeout_s)
    torch.manual_seed(plan.seed)
    network = task.network().to(world.device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    precision = Precision.of(plan.run.amp, world.device)
    training, validation = task.loader("train", world), task.loader("val", world)
    _check_shares(plan, training)
    strategy = wrap(
        network,
        plan,
        world,
        precision,
        lambda: _chain(network, task, plan, shards, out, world, precision),
    )
    strategy.warm_up(training.blank(2))
    made = optimizer(strategy.network, recipe)
    made.zero_grad(
        set_to_none=True
    )  # with gradients left, an empty optimizer state would not be set up for reading
    average = Average(strategy.network, recipe.ema)
    return Trainer(
        plan=plan,
        world=world,
        strategy=strategy,
        precision=precision,
        optimizer=made,
        average=average,
        criterion=task.criterion(network, world.device),
        training=training,
        validation=validation,
        tensors=Tensors(strategy, made, average),
        checkpoints=Checkpoints(out / "checkpoints", world, _key(plan, shards)),
        progress=Progress(),
        guard=Guard(world, plan.parallel, watch),
        watchdog=watchdog,
        since=start,
    )


def _check_shares(plan: RunPlan, training: Loader) -> None:
    """SyncBatchNorm waits for all replicas in each micro-batch: none may be without images."""
    recipe = plan.recipe
    if (
        recipe.sync_batchnorm
        and plan.run.replicas > 1
        and training.smallest_share < recipe.accumulate
    ):
        raise MedscaleError(
            f"{plan.run.name}: the smallest share of a step is {training.smallest_share} image(s) a replica, which "
            f"recipe.accumulate {recipe.accumulate} cannot divide, as recipe.sync_batchnorm needs; lower "
            "recipe.accumulate or raise recipe.batch_size"
        )


def restore(trainer: Trainer) -> bool:
    """Go on from the newest whole checkpoint, if there is one; whether there was."""
    found = trainer.checkpoints.latest()
    if found is None:
        return False
    folder, progress = found
    tensors = trainer.tensors.collect(with_best=progress.best_epoch > 0)
    trainer.checkpoints.read(folder, tensors)
    trainer.tensors.restore(tensors)
    progress.restarts += 1
    trainer.progress = progress
    trainer.precision.load(progress.precision)
    return True


def _chain(
    network: nn.Module,
    task: Task,
    plan: RunPlan,
    shards: Shards,
    out: Path,
    world: World,
    precision: Precision,
) -> tuple[list[Block], Cut]:
    """The network as blocks, and where to cut it: measured once a run folder, so that a restart has the same stages."""
    blocks, kept, cut = stages(network), out / "checkpoints" / "cut.json", None
    key = digest([_key(plan, shards), plan.run.stages])
    if world.is_main:
        if kept.is_file() and (read := read_json(kept)).pop("key", None) == key:
            cut = Cut(**read)
        if cut is None:
            each = max(1, plan.global_batch // plan.run.replicas // plan.parallel.microbatches)
            images = task.loader("train", world).blank(each)
            assert isinstance(images, torch.Tensor)  # a pipeline has no metadata
            cut = measure(blocks, images.normal_(), precision, plan.run.stages)
            write_json(kept, {"key": key, **asdict(cut)})
    cut = world.from_main(cut)
    assert cut is not None
    return blocks, cut


def _predict(trainer: Trainer, shards: Shards, task: Task, split: str) -> pd.DataFrame | None:
    """Predictions of all images of a split with the network as it is, on rank 0."""
    split_loader = loader(trainer.plan, shards, split, trainer.world, metadata=task.metadata)
    parts = [
        task.part(trainer.criterion, logits, labels, ids)
        for logits, labels, ids in outputs(trainer.strategy, split_loader, trainer.watchdog)
    ]
    gathered = trainer.world.gather(parts)
    if gathered is None:
        return None
    return task.table(
        [part for rank in gathered for part in rank], split, len(shards.positions(split))
    )


def _key(plan: RunPlan, shards: Shards) -> str:
    """What checkpoints belong to: all that decides the weights."""
    return digest([plan.training_digest, shards.meta["digest"]])


def _measured(trainer: Trainer, meter: Meter) -> dict[str, Any] | None:
    """Wall time, memory, energy and use of all ranks, on rank 0."""
    world = trainer.world
    mine = (
        host_memory_mb(),
        device_memory_mb(world.device),
        meter.joules(),
        meter.use_percent(),
        world.threads,
    )
    rows = world.gather(mine)
    if rows is None:
        return None
    host, device, joules, use, threads = (list(column) for column in zip(*rows, strict=True))
    return {
        "wall_seconds": trainer.wall_seconds(),
        "threads_per_rank": threads[0],
        "peak_memory_mb": {"host": host, "device": None if None in device else device},
        "energy_joules": None if None in joules or trainer.progress.restarts else sum(joules),
        "gpu_use_percent": None if None in use else use,
        "communication_measured": trainer.strategy.waited_s is not None,
    }


def _headline(plan: RunPlan, trainer: Trainer, resumed: bool) -> str:
    stand_in = " (CPU processes stand in for GPUs)" if plan.stand_in else ""
    text = (
        f"{plan.study} {plan.run.name} seed {plan.seed}{stand_in}: {plan.model.name}, "
        f"{trainer.training.images} training images, global batch {plan.global_batch}, "
        f"{plan.run.devices} processes of {trainer.world.threads} threads"
    )
    at = trainer.progress
    return f"{text}; goes on from epoch {at.epoch + 1}, step {at.step}" if resumed else text


def explained(error: Exception, plan: RunPlan) -> Exception:
    """Out of memory as an error that says which batch size to try; other known causes likewise; the rest as it is."""
    chain = [error]
    while chain[-1].__cause__ is not None:  # a pipeline wraps what a stage raised
        chain.append(chain[-1].__cause__)  # type: ignore[arg-type]
    if "Expected more than 1 value per channel" in str(chain[-1]):
        return MedscaleError(
            f"batch normalization got a micro-batch of one image ({plan.global_batch} images a step, "
            f"{plan.run.replicas} replicas, {plan.parallel.microbatches} micro-batches each): raise recipe.batch_size "
            "or lower parallel.microbatches"
        )
    if not isinstance(chain[-1], torch.OutOfMemoryError) and "can't allocate memory" not in str(
        chain[-1]
    ):
        return chain[-1] if isinstance(chain[-1], Exception) else error
    each = plan.global_batch // plan.run.replicas
    smaller = plan.run.model_copy(update={"batch": max(1, plan.recipe.batch_size // 2)})
    return MedscaleError(
        f"out of memory with {each} images a device. Try {smaller.name}, or recipe.accumulate: "
        f"{plan.recipe.accumulate * 2}, which keeps the global batch"
    )
