"""Train one replicate: build its parts from the plan, train, predict, and write the run folder."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from medscale.base.memory import peak_memory_mb
from medscale.base.provenance import conditions, environment, hardware
from medscale.base.text import amount
from medscale.data.loader import Loader
from medscale.data.shards import Shards
from medscale.engine.formats import format_of, use
from medscale.engine.models.registry import stages
from medscale.engine.parallel.apply import apply_strategy
from medscale.engine.parallel.cut import Chain, Cut, measure
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.resolve import record
from medscale.engine.train import compiled, records
from medscale.engine.train.board import board
from medscale.engine.train.capture import NotCaptured
from medscale.engine.train.checkpoint import Checkpoints
from medscale.engine.train.clock import Meter, device_memory_mb
from medscale.engine.train.ema import Average
from medscale.engine.train.graphs import capture, capture_prediction, release
from medscale.engine.train.guard import Guard, Watch, Watchdog
from medscale.engine.train.loop import Trainer
from medscale.engine.train.progress import Progress
from medscale.engine.train.recipe import optimizer as make_optimizer
from medscale.engine.train.state import Tensors
from medscale.engine.train.task import Task, loader


def train(plan: RunPlan, shards: Shards, task: Task, out: Path, world: World, watch: Watch) -> None:
    """Train a replicate, from its last checkpoint if there is one, and write its run folder.

    Raises:
        Stopped: when training was asked to stop; a new start continues it.
        MedscaleError: when the loss is not finite, memory runs out, or the shards do not fit.
    """
    start, meter = monotonic(), Meter(world.device)
    # The provenance is taken first, as code and machine can change while training runs.
    inputs = {"shards": shards.meta["digest"]}
    decided = {"format": format_of(plan, world.device)}
    provenance = world.from_main(environment(plan, inputs) | decided if world.is_main else {})
    with explaining(plan), ExitStack() as stack:
        trainer, resumed = ready(plan, shards, task, out, world, watch, start)
        stack.callback(release, trainer)
        plan = trainer.plan
        trainer.progress.note(conditions(provenance))
        if world.is_main:
            log.info("%s", _headline(trainer, resumed))
            _warn_of_change(plan, trainer.progress)
        if plan.tensorboard and world.is_main:
            folder, epoch = out / "tensorboard", trainer.progress.epoch
            trainer.log_row = stack.enter_context(board(folder, epoch))
        trainer.run()
        trainer.watchdog.rest()
        trainer.tensors.use_best()
        tables = [_predict(trainer, shards, task, split) for split in ("val", "test")]
        trainer.watchdog.rest()
        weights = trainer.tensors.whole(world)
        measured = _measured(trainer, meter)
    if weights is not None and measured is not None:  # on rank 0
        records.write(
            out,
            trainer.progress,
            weights=weights,
            predicted=pd.concat([t for t in tables if t is not None], ignore_index=True),
            timing=records.timing(plan, trainer.progress, trainer.training.images, measured),
            provenance=provenance
            | {"resolved": record(plan), "earlier": trainer.progress.conditions[:-1]},
        )
    trainer.checkpoints.discard()
    trainer.watchdog.dismiss()


def ready(
    plan: RunPlan, shards: Shards, task: Task, out: Path, world: World, watch: Watch, start: float
) -> tuple[Trainer, bool]:
    """Build a replicate, restore its last checkpoint, and capture its steps as CUDA graphs.

    Steps that cannot be captured are called, which is logged with the cause.

    Returns:
        The trainer, whose plan says whether there are graphs, and whether there was a checkpoint.

    Raises:
        MedscaleError: if steps cannot be captured and ``recipe.graph`` is ``on``.
    """
    trainer = assemble(plan, shards, task, out, world, watch, start)
    resumed = restore(trainer)
    try:
        captured = capture(trainer)
    except NotCaptured as cause:
        message = f"{plan.run.name}: the step is not captured as a CUDA graph: {cause}"
        if plan.recipe.graph == "on":
            raise MedscaleError(f"{message}; set recipe.graph: auto or off") from None
        log.info("%s; its operations are started by the host, which is slower", message)
    else:
        trainer.plan = with_graph(plan, captured)
        return trainer, resumed
    # A capture that failed leaves hooks and buffers of the strategy in between. They are in circles
    # of references, and hold memory of the GPU until they are collected.
    release(trainer)
    del trainer
    gc.collect()
    return ready(with_graph(plan, False), shards, task, out, world, watch, start)


def with_graph(plan: RunPlan, captured: bool) -> RunPlan:
    """Return a plan that says whether its steps are CUDA graphs."""
    graph = {"graph": "on" if captured else "off"}
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update=graph)})


def assemble(
    plan: RunPlan, shards: Shards, task: Task, out: Path, world: World, watch: Watch, start: float
) -> Trainer:
    """Build all parts of a replicate on this rank; ``start`` is when it began (monotonic)."""
    recipe = plan.recipe
    _choose_algorithms(deterministic=recipe.deterministic)
    watchdog = Watchdog(world.rank, plan.parallel.timeout_s)
    network = _network(plan, task, world)
    precision = Precision(format_of(plan, world.device), world.device)
    use(precision.format)
    training, validation = task.loader("train", world), task.loader("val", world)
    _check_shares(plan, training)
    key = digest([plan.training_digest, shards.meta["digest"]])

    def chain() -> Chain:
        file = out / "checkpoints" / "cut.json"
        return _chain(network, training, plan, file, key, world, precision)

    if recipe.compile == "on":
        compiled.keep(out.parent, world.device)
    model = apply_strategy(network, plan, world, precision, chain)
    model.warm_up(training.blank(2).inputs)
    optimizer = make_optimizer(model.network, recipe, precision)
    # PyTorch does not prepare an empty optimizer state for reading while there are gradients.
    optimizer.zero_grad(set_to_none=True)
    average = Average(model.network, recipe.ema)
    return Trainer(
        plan=plan,
        world=world,
        model=model,
        precision=precision,
        optimizer=optimizer,
        average=average,
        criterion=task.criterion(network, model),
        training=training,
        validation=validation,
        tensors=Tensors(model, optimizer, average),
        checkpoints=Checkpoints(out / "checkpoints", world, key),
        progress=Progress(processes=world.size, fewest=world.size),
        guard=Guard(world, plan.parallel, watch),
        watchdog=watchdog,
        started=start,
    )


def _choose_algorithms(*, deterministic: bool) -> None:
    """Let PyTorch use deterministic algorithms, or those that cuDNN measures to be fastest."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Filling new tensors with NaN helps to find bugs only, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic


def _network(plan: RunPlan, task: Task, world: World) -> nn.Module:
    """Return the network with its initial weights, which are the same on every rank."""
    torch.manual_seed(plan.seed)
    network = task.network().to(world.device)
    if plan.recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network


def _check_shares(plan: RunPlan, training: Loader) -> None:
    """Fail if a micro-batch can be empty on a replica: SyncBatchNorm would wait for it forever."""
    recipe, smallest = plan.recipe, training.smallest_share
    if recipe.sync_batchnorm and plan.replicas > 1 and smallest < recipe.accumulate:
        raise MedscaleError(
            f"{plan.run.name}: the smallest share of a step is {amount(smallest, 'image')} a "
            f"replica, which recipe.accumulate {recipe.accumulate} cannot divide, as "
            "recipe.sync_batchnorm needs; lower recipe.accumulate or raise recipe.batch_size"
        )


def restore(trainer: Trainer) -> bool:
    """Continue from the newest valid checkpoint; return whether there is one.

    Raises MedscaleError if there is none and the processes are fewer than the run's devices
    (``fewer.plan_here``): the result would have the times of another run.
    """
    checkpoint = trainer.checkpoints.latest()
    run = trainer.plan.run
    if checkpoint is None and trainer.world.size < run.devices:
        raise MedscaleError(
            f"{run.name} cannot go on with {trainer.world.size} of its {run.devices} devices, "
            "since its checkpoints are damaged or of other settings; train it on all of them"
        )
    if checkpoint is None:
        return False
    folder, progress = checkpoint
    tensors = trainer.tensors.collect(with_best=progress.best_epoch > 0)
    trainer.checkpoints.read(folder, tensors)
    trainer.tensors.restore(tensors)
    progress.go_on(trainer.world.size)
    trainer.progress = progress
    trainer.precision.load(progress.precision)
    return True


def _chain(
    network: nn.Module,
    training: Loader,
    plan: RunPlan,
    file: Path,
    key: str,
    world: World,
    precision: Precision,
) -> Chain:
    """Return the network as blocks, and its cut: measured once per run folder, for restarts."""
    blocks, cut = stages(network), None
    key = digest([key, plan.run.stages])
    if world.is_main:
        if file.is_file() and (content := read_json(file)).pop("key", None) == key:
            cut = Cut(**content)
        if cut is None:
            micro_size = max(1, plan.images_at_a_time // plan.parallel.microbatches)
            images = training.blank(micro_size).images.normal_()
            cut = measure(blocks, images, precision, plan.run.stages)
            write_json(file, {"key": key, **asdict(cut)})
    cut = world.from_main(cut)
    assert cut is not None
    return blocks, cut


def _predict(trainer: Trainer, shards: Shards, task: Task, split: str) -> pd.DataFrame | None:
    """Return the predictions of all images of a split on rank 0; None on other ranks."""
    split_loader = loader(trainer.plan, shards, split, trainer.world, metadata=task.metadata)
    capture_prediction(trainer, split_loader)
    parts = [
        task.part(trainer.criterion, logits, labels, ids)
        for logits, labels, ids in trainer.outputs(split_loader)
        if logits is not None
    ]
    gathered = trainer.world.gather(parts)
    if gathered is None:
        return None
    images = len(shards.positions(split))
    return task.table([part for rank in gathered for part in rank], split, images)


def _measured(trainer: Trainer, meter: Meter) -> dict[str, Any] | None:
    """Return wall time, memory, energy and utilization of all ranks on rank 0."""
    world, progress = trainer.world, trainer.progress
    rows = world.gather(
        (
            peak_memory_mb(),
            device_memory_mb(world.device),
            meter.joules(),
            meter.use_percent(),
            world.threads,
        )
    )
    if rows is None:
        return None
    host, device, joules, use, threads = (list(column) for column in zip(*rows, strict=True))
    trainer.count_time()
    return {
        "wall_seconds": progress.wall_s,
        "device_seconds": progress.device_s,
        "threads_per_rank": threads[0],
        "peak_memory_mb": {"host": host, "device": None if None in device else device},
        "energy_joules": None if None in joules or progress.restarts else sum(joules),
        "gpu_use_percent": None if None in use else use,
        "communication_measured": trainer.model.waits.measured,
    }


def _headline(trainer: Trainer, resumed: bool) -> str:
    """Return the first line of the log."""
    plan, progress = trainer.plan, trainer.progress
    stand_in = " (CPU processes stand in for GPUs)" if plan.stand_in else ""
    text = (
        f"{plan.study} {plan.run.name} {plan.replicate}{stand_in}: {plan.model.name} in "
        f"{trainer.precision.format}, {trainer.training.images} training images, "
        f"global batch {plan.global_batch}, {amount(plan.processes, 'process')} of "
        f"{amount(trainer.world.threads, 'thread')}"
    )
    if resumed:
        text += f"; goes on from epoch {progress.epoch + 1}, step {progress.step}"
    return text


def _warn_of_change(plan: RunPlan, progress: Progress) -> None:
    """Log in what the conditions of a training that goes on differ from those before."""
    if len(progress.conditions) < 2:
        return
    before, now = progress.conditions[-2:]
    log.warning(
        "%s goes on under other conditions (%s): on %s in %s, before on %s in %s; times of an "
        "epoch are those on the hardware of most epochs",
        plan.run.name,
        ", ".join(key for key in now if now[key] != before.get(key)),
        *(hardware(now), now["format"], hardware(before), before["format"]),
    )


@contextmanager
def explaining(plan: RunPlan) -> Iterator[None]:
    """Raise PyTorch's errors in the context as ``explained`` returns them."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise explained(error, plan) from error


def explained(error: Exception, plan: RunPlan) -> Exception:
    """Return an error with a remedy for a known cause such as too little memory.

    Other errors are returned without the wrapping of a pipeline.
    """
    cause: BaseException = error
    while cause.__cause__ is not None:  # a pipeline wraps the error of a stage
        cause = cause.__cause__
    if "Expected more than 1 value per channel" in str(cause):
        parts = {"recipe.accumulate": plan.recipe.accumulate}
        if plan.run.stages > 1:
            parts["parallel.microbatches"] = plan.parallel.microbatches
        divisors = {"replicas": plan.replicas, **parts}
        listing = ", ".join(f"{name} {value}" for name, value in divisors.items())
        lower = " or lower ".join(["", *(name for name, value in parts.items() if value > 1)])
        return MedscaleError(
            "batch normalization got a part of one image, since the images of a step "
            f"({plan.global_batch}) are divided ({listing}): raise recipe.batch_size{lower}"
        )
    if isinstance(cause, torch.OutOfMemoryError) or "can't allocate memory" in str(cause):
        if plan.images_at_a_time == 1:
            return MedscaleError(
                "out of memory with 1 image a device: take smaller images or a smaller network"
            )
        half = plan.run.model_copy(update={"batch": max(1, plan.recipe.batch_size // 2)})
        return MedscaleError(
            f"out of memory with {plan.images_at_a_time} images a device. Try {half.name}, or "
            f"recipe.accumulate: {plan.recipe.accumulate * 2}, which keeps the global batch"
        )
    return cause if isinstance(cause, Exception) else error
