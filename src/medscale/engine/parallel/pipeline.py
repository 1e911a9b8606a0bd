"""Model parallel: the network is cut into stages of equal measured cost, and micro-batches flow through them."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.modules.dropout import _DropoutNd

from medscale.base.errors import MedscaleError
from medscale.engine.parallel.cut import Block, Cut
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies import Criterion, Inputs, Micro, Strategy, measured
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan

SCHEDULES = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
}  # Huang et al. 2019; Narayanan et al. 2019
BUCKET = 2**23  # gradient elements an all-reduce between replicas


class Stage(nn.Module):
    """Consecutive blocks of a chain; randomness is set block by block, so that it does not depend on the cut."""

    def __init__(
        self, blocks: Sequence[Block], first: int, precision: Precision, *, channels_last: bool
    ) -> None:
        super().__init__()
        self.inner = nn.ModuleList(block for _, block in blocks)
        self.seed, self.before, self.chunk = 0, 0, 0
        self._first, self._precision = first, precision
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._random = [any(map(_draws, b.modules())) for b in self.inner]

    def forward(self, x: Tensor) -> Tensor:
        """Activations of one micro-batch through all blocks of the stage."""
        if x.is_leaf and x.requires_grad:
            x = x.clone()  # what was received; the first block may work in place
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
    """Counts the seconds in which this stage computes; the rest of a step is waiting for its neighbours."""

    computed_s = 0.0

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        """As in PipelineStage."""
        start = perf_counter()
        self.submod.chunk = fwd_chunk_id  # type: ignore[assignment]
        out = super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)
        self.computed_s += perf_counter() - start
        return out

    def backward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        """As in PipelineStage."""
        start = perf_counter()
        out = super().backward_one_chunk(*args, **kwargs)
        self.computed_s += perf_counter() - start
        return out


class Pipeline(Strategy):
    """One stage of a pipeline, in one of ``dp`` replicas of it.

    The micro-batches of a schedule have one size. A step whose images do not divide evenly runs two schedules, one
    for each of the two sizes, so that no image is padded or counted twice.
    """

    def __init__(
        self,
        network: nn.Module,
        blocks: Sequence[Block],
        cut: Cut,
        plan: RunPlan,
        world: World,
        precision: Precision,
    ) -> None:
        super().__init__(network, world, precision)
        self._order = {name: number for number, (name, _) in enumerate(network.named_parameters())}
        first, self._end = cut.bounds[world.stage], cut.bounds[world.stage + 1]
        self.stage = Stage(
            blocks[first : self._end], first, precision, channels_last=plan.recipe.channels_last
        )
        for name, _ in [*blocks[:first], *blocks[self._end :]]:
            _remove(network, name)
        self.cut, self._first, self._plan = cut, first, plan
        self._group = world.mesh["pp"].get_group()
        self._last_stage = world.stage == plan.run.stages - 1
        self._schedules: dict[tuple[int, int], tuple[TimedStage, Any]] = {}
        self._step: tuple[Criterion, int, Tensor] | None = None
        self.waited_s = 0.0 if world.device.type == "cpu" else None

    def warm_up(self, images: Inputs) -> None:
        """See ``Strategy.warm_up``: nothing here depends on the first step."""

    def train(self, mode: bool) -> None:
        """See ``Strategy.train``."""
        super().train(mode)
        self.stage.train(mode)

    def backward(self, micros: Sequence[Micro], criterion: Criterion, size: int) -> Tensor:
        """See ``Strategy.backward``."""
        self.stage.seed = torch.initial_seed() % 2**62
        sums = torch.zeros(3, dtype=torch.int64, device=self.world.device)
        images, labels = (torch.cat(parts) for parts in zip(*micros, strict=True))
        self._step = criterion, size, sums
        for start, each, count in evenly(
            len(labels), self._plan.parallel.microbatches * len(micros)
        ):
            self.stage.before = start  # micro-batches of the other size have other numbers
            part = slice(start, start + each * count)
            self._run(images[part], labels[part], each, count)
        self._average_gradients()
        return sums

    def _run(self, images: Tensor, labels: Tensor, each: int, count: int) -> None:
        stage, schedule = self._schedule(each, count)
        begin, stage.computed_s = perf_counter(), 0.0
        schedule.step(
            *([images] if self.world.stage == 0 else []),
            target=labels if self._last_stage else None,
            return_outputs=False,
        )
        if self.waited_s is not None:
            self.waited_s += perf_counter() - begin - stage.computed_s

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A micro-batch's part of the mean loss over the global batch."""
        assert self._step is not None
        criterion, size, sums = self._step
        value = criterion(logits.float(), labels)
        sums.add_(measured(value, criterion.correct(logits, labels)))
        return self.precision.scaled(value / size)

    def _schedule(self, each: int, count: int) -> tuple[TimedStage, Any]:
        """The schedule for ``count`` micro-batches of ``each`` images, made once."""
        if (each, count) not in self._schedules:
            stage = TimedStage(
                self.stage,
                self.world.stage,
                self._plan.run.stages,
                self.world.device,
                input_args=self._border(self._first, each, grad=self.world.stage > 0),
                output_args=self._border(self._end, each, grad=True),
                group=self._group,
            )
            few = (
                count < self._plan.run.stages
            )  # then 1F1B is GPipe, and PyTorch wants it called so
            kind = ScheduleGPipe if few else SCHEDULES[self._plan.parallel.schedule]
            self._schedules[each, count] = (
                stage,
                kind(stage, count, loss_fn=self._loss, scale_grads=False),
            )
        return self._schedules[each, count]

    def _border(self, number: int, images: int, *, grad: bool) -> Tensor:
        """Shape and type of what crosses the border before block ``number``, as a tensor without data."""
        dtype = getattr(torch, self.cut.dtypes[number])
        return torch.empty(
            images, *self.cut.shapes[number], dtype=dtype, device="meta", requires_grad=grad
        )

    def _average_gradients(self) -> None:
        """Sum gradients over the replicas of this stage: each is already divided by the global batch."""
        if self.world.mesh["dp"].size() == 1:
            return
        bucket: list[Tensor] = []
        parameters = list(self.network.parameters())
        for number, parameter in enumerate(parameters, start=1):
            if parameter.grad is None:  # a replica without images in this step
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(g.numel() for g in bucket) >= BUCKET or number == len(parameters):
                self._reduce(bucket)
                bucket = []

    def grad_norm(self) -> Tensor:
        """See ``Strategy.grad_norm``: each parameter's norm in the whole network's order, so that no cut changes it."""
        norms = torch.zeros(len(self._order), device=self.world.device)
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None:
                norms[self._order[name]] = torch.linalg.vector_norm(parameter.grad)
        dist.all_reduce(norms, group=self._group)
        return torch.linalg.vector_norm(norms)

    def logits(self, images: Inputs) -> Tensor | None:
        """See ``Strategy.logits``: activations go from stage to stage."""
        peers, here = dist.get_process_group_ranks(self._group), self.world.stage
        with torch.no_grad():
            x = images
            if here > 0:
                x = torch.empty_like(
                    self._border(self._first, len(images), grad=False), device=self.world.device
                )
                dist.recv(x, peers[here - 1], group=self._group)
            x = self.stage(x)
            if self._last_stage:
                return x.float()
            dist.send(x, peers[here + 1], group=self._group)
            return None


def evenly(images: int, parts: int) -> list[tuple[int, int, int]]:
    """Cut images into at most ``parts`` micro-batches whose sizes differ by at most one.

    Returns:
        ``(start, images a micro-batch, micro-batches)`` for each of the at most two sizes.
    """
    parts = min(parts, images)
    if not parts:
        return []
    small, larger = divmod(images, parts)
    runs = [(0, small + 1, larger), (larger * (small + 1), small, parts - larger)]
    return [run for run in runs if run[2]]


def pipeline(
    network: nn.Module,
    plan: RunPlan,
    world: World,
    precision: Precision,
    blocks: Sequence[Block],
    cut: Cut,
) -> Pipeline:
    """Keep this rank's stage of a network.

    Args:
        network: the whole network; what other ranks have is removed from it.
        plan: the run.
        world: this rank's place.
        precision: number format.
        blocks: the network as a chain, by name.
        cut: where it is cut, the same on all ranks.

    Raises:
        MedscaleError: when the cut is not one of this network into this run's stages.
    """
    if cut.bounds[-1] != len(blocks) or len(cut.bounds) != plan.run.stages + 1:
        raise MedscaleError(
            f"{plan.run.name}: the kept cut is of another network; delete the run's folder"
        )
    if plan.recipe.compile:
        for _, block in blocks:
            block.compile()
    return Pipeline(network, blocks, cut, plan, world, precision)


def _draws(module: nn.Module) -> bool:
    """Whether a module draws random numbers in training: dropout of any kind, or timm's stochastic depth."""
    return (isinstance(module, _DropoutNd) and module.p > 0) or bool(
        getattr(module, "drop_prob", None)
    )


def _remove(network: nn.Module, name: str) -> None:
    """Take a submodule out of its parent, where the network knows it by that name."""
    parent, _, child = name.rpartition(".")
    network.get_submodule(parent)._modules.pop(child, None)
