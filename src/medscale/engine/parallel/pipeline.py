"""Pipeline parallel training: micro-batches flow through stages of equal measured cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from medscale.base.errors import MedscaleError
from medscale.engine.parallel.cut import Block
from medscale.engine.parallel.model import (
    SUMS,
    Criterion,
    Inputs,
    Micro,
    ParallelModel,
    loss_sums,
)
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies.strategy import Setup
from medscale.engine.parallel.waits import Mark, Waits

# Huang et al. (NeurIPS 2019) and Narayanan et al. (SOSP 2019)
SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
BUCKET = 2**23  # gradient elements per all-reduce between replicas
# Attributes of layers: the probability with which values or branches are dropped.
DROPOUT_RATES = ("p", "dropout", "drop_prob", "drop_rate")
# PyTorch's CUDAGeneratorImpl::set_current_seed raises an error for a new seed during a capture.
RESEEDS = (
    "its dropout is seeded for each block and micro-batch, which PyTorch refuses during a capture"
)


class Stage(nn.Module):
    """Consecutive blocks of a chain.

    The random generator is seeded before each block that draws random numbers, by the block's
    number in the whole network, so that dropout does not depend on the cut.
    """

    def __init__(
        self, blocks: Sequence[Block], first: int, precision: Precision, *, channels_last: bool
    ) -> None:
        super().__init__()
        self.inner = nn.ModuleList(block for _, block in blocks)
        self.seed, self.before, self.chunk = 0, 0, 0
        self._first, self._precision = first, precision
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._random = [_is_random(block) for block in self.inner]

    def forward(self, x: Tensor) -> Tensor:
        """Pass the activations of a micro-batch through all blocks of the stage."""
        if x.is_leaf and x.requires_grad:
            x = x.clone()  # received from the previous stage; the first block may work in place
        x = x.contiguous(memory_format=self._format) if x.dim() == 4 else x
        with self._precision.autocast():
            for number, block in enumerate(self.inner):
                if self.training and self._random[number]:
                    torch.manual_seed(
                        self.seed
                        + 1_000_003 * (self._first + number)
                        + 7919 * (self.before + self.chunk)
                    )
                x = block(x)
        return x.contiguous()


class TimedStage(PipelineStage):
    """Measure the time between micro-batches, in which a stage waits for its neighbours."""

    waits: Waits
    idle: Mark  # the end of the last micro-batch, or the start of the schedule

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        """See ``PipelineStage``."""
        self.waits.add(self.idle)
        self.submod.chunk = fwd_chunk_id  # type: ignore[assignment]
        output = super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)
        self.idle = self.waits.mark()
        return output

    def backward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        """See ``PipelineStage``."""
        self.waits.add(self.idle)
        output = super().backward_one_chunk(*args, **kwargs)
        self.idle = self.waits.mark()
        return output


class Pipeline(ParallelModel):
    """One stage of a pipeline, in one of ``dp`` replicas of it.

    All micro-batches of a schedule have the same size. A step whose images do not divide evenly
    runs two schedules, one for each of the two sizes, so that no image is padded or counted twice.
    """

    # By its source, a schedule can be captured: each transfer is waited for within the step, the
    # communicators exist, and buffers stay at their addresses.
    not_tried = "no pipeline was captured on GPUs yet (recipe.graph: on tries it)"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.network, setup.world, setup.precision)
        blocks, self.cut = setup.chain()
        if self.cut.bounds[-1] != len(blocks) or len(self.cut.bounds) != setup.stages + 1:
            raise MedscaleError(
                "the kept cut of the pipeline belongs to another network; delete the run's folder"
            )
        # All ranks check the whole network for dropout, so that all capture the step or none does.
        if any(_is_random(block) for _, block in blocks):
            self.not_captured = RESEEDS
        if setup.compile:
            for _, block in blocks:
                block.compile(dynamic=False)
        # Numbers of the parameters in the whole network, before other stages are removed.
        names = [name for name, _ in self.network.named_parameters()]
        self._order = {name: number for number, name in enumerate(names)}
        self._setup, rank = setup, setup.world.stage
        self._first, self._end = self.cut.bounds[rank], self.cut.bounds[rank + 1]
        self.stage = Stage(
            blocks[self._first : self._end],
            self._first,
            setup.precision,
            channels_last=setup.channels_last,
        )
        for name, _ in [*blocks[: self._first], *blocks[self._end :]]:
            _remove(self.network, name)
        self._group = self.world.mesh.get_group("pp")
        self._is_last = rank == setup.stages - 1
        self._schedules: dict[tuple[int, int], tuple[TimedStage, Any]] = {}
        self._step: tuple[Criterion, int, Tensor] | None = None

    def warm_up(self, inputs: Inputs) -> None:
        """See ``ParallelModel.warm_up``: a pipeline needs none."""

    def train(self, mode: bool) -> None:
        """See ``ParallelModel.train``."""
        super().train(mode)
        self.stage.train(mode)

    def backward(self, micros: Sequence[Micro], criterion: Criterion, size: int) -> Tensor:
        """See ``ParallelModel.backward``."""
        self.stage.seed = torch.initial_seed() % 2**62
        sums = torch.zeros(SUMS, dtype=torch.int64, device=self.world.device)
        images, labels = (torch.cat(parts) for parts in zip(*micros, strict=True))
        self._step = criterion, size, sums
        for start, micro_size, count in micro_batches(
            len(labels), self._setup.microbatches * len(micros)
        ):
            self.stage.before = start  # so that micro-batches of the two sizes differ in dropout
            part = slice(start, start + micro_size * count)
            self._run(images[part], labels[part], micro_size, count)
        self._sum_gradients()
        return sums

    def _run(self, images: Tensor, labels: Tensor, micro_size: int, count: int) -> None:
        """Run a schedule of ``count`` micro-batches of ``micro_size`` images."""
        stage, schedule = self._schedule(micro_size, count)
        stage.idle = self.waits.mark()
        schedule.step(
            *([images] if self.world.stage == 0 else []),
            target=labels if self._is_last else None,
            return_outputs=False,
        )
        self.waits.add(stage.idle)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a micro-batch's part of the mean loss over the global batch."""
        assert self._step is not None
        criterion, size, sums = self._step
        loss = criterion(logits.float(), labels)
        sums.add_(loss_sums(loss, criterion.correct(logits, labels)))
        return self.precision.scaled(loss / size)

    def _schedule(self, micro_size: int, count: int) -> tuple[TimedStage, Any]:
        """Return the schedule for ``count`` micro-batches of ``micro_size`` images; it is kept."""
        if (micro_size, count) not in self._schedules:
            stages = self._setup.stages
            stage = TimedStage(
                self.stage,
                self.world.stage,
                stages,
                self.world.device,
                input_args=self._activation(self._first, micro_size, grad=self.world.stage > 0),
                output_args=self._activation(self._end, micro_size, grad=True),
                group=self._group,
            )
            stage.waits = self.waits
            # With fewer micro-batches than stages, 1F1B equals GPipe, and PyTorch refuses 1F1B.
            kind = ScheduleGPipe if count < stages else SCHEDULES[self._setup.schedule]
            schedule = kind(stage, count, loss_fn=self._loss, scale_grads=False)
            self._schedules[micro_size, count] = stage, schedule
        return self._schedules[micro_size, count]

    def _activation(self, number: int, images: int, *, grad: bool) -> Tensor:
        """Return the activation before block ``number`` as a tensor without data.

        Images have the loader's memory format, which PyTorch 2.11 compares; a stage sends
        contiguous activations.
        """
        channels_last = number == 0 and self._setup.channels_last
        return torch.empty(
            (images, *self.cut.shapes[number]),
            dtype=getattr(torch, self.cut.dtypes[number]),
            device="meta",
            requires_grad=grad,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )

    def _sum_gradients(self) -> None:
        """Sum gradients over replicas of this stage; losses are divided by the global batch."""
        if self.world.replicas == 1:
            return
        bucket: list[Tensor] = []
        parameters = list(self.network.parameters())
        for number, parameter in enumerate(parameters, start=1):
            if parameter.grad is None:  # a replica without images in this step
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(g.numel() for g in bucket) >= BUCKET or number == len(parameters):
                self.sum_over_replicas(bucket)
                bucket = []

    def grad_norm(self) -> Tensor:
        """See ``ParallelModel.grad_norm``.

        The parameters' norms are combined in the order of the whole network, so that the result
        does not depend on the cut.
        """
        norms = torch.zeros(len(self._order), device=self.world.device)
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None:
                norms[self._order[name]] = torch.linalg.vector_norm(parameter.grad)
        dist.all_reduce(norms, group=self._group)
        return torch.linalg.vector_norm(norms)

    def logits(self, inputs: Inputs) -> Tensor | None:
        """See ``ParallelModel.logits``: activations are sent from stage to stage."""
        ranks, stage = dist.get_process_group_ranks(self._group), self.world.stage
        with torch.no_grad(), self.uncompiled():
            x = inputs
            if stage > 0:
                received = self._activation(self._first, len(inputs), grad=False)
                x = torch.empty_like(received, device=self.world.device)
                dist.recv(x, ranks[stage - 1], group=self._group)
            x = self.stage(x)
            if self._is_last:
                return x.float()
            dist.send(x, ranks[stage + 1], group=self._group)
            return None


def micro_batches(images: int, parts: int) -> list[tuple[int, int, int]]:
    """Cut images into at most ``parts`` micro-batches whose sizes differ by at most one.

    Returns:
        ``(start, images per micro-batch, micro-batches)`` for each of the at most two sizes.
    """
    parts = min(parts, images)
    if not parts:
        return []
    small, larger = divmod(images, parts)
    runs = [(0, small + 1, larger), (larger * (small + 1), small, parts - larger)]
    return [run for run in runs if run[2]]


def _is_random(block: nn.Module) -> bool:
    """Return whether a block draws random numbers, by dropout or stochastic depth.

    Layers that call dropout as a function have its probability as an attribute: those of timm, of
    torchvision (``StochasticDepth``) and PyTorch's attention.
    """
    rates = (getattr(part, name, None) for part in block.modules() for name in DROPOUT_RATES)
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def _remove(network: nn.Module, name: str) -> None:
    """Remove a submodule from its parent, if the network has a submodule of that name."""
    parent, _, child = name.rpartition(".")
    network.get_submodule(parent)._modules.pop(child, None)
