"""A small network that is trained in this process, step by step, on any device.

The tests of a step run on the CPU with every suite, and on a GPU by ``make test-gpu``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medscale.data.loader import Loader
from medscale.data.shards import Shards
from medscale.engine.formats import NumberFormat, use
from medscale.engine.parallel.model import WholeModel
from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Augment, Recipe
from medscale.engine.train import graphs
from medscale.engine.train.capture import NotCaptured
from medscale.engine.train.ema import Average
from medscale.engine.train.loop import step_seed
from medscale.engine.train.recipe import CrossEntropy, optimizer, set_rate
from medscale.engine.train.shapes import FixedShapes
from medscale.engine.train.step import OptimizerStep

AUGMENT = Augment(rotate=10, hflip=0.5, brightness=0.2, noise=0.05)


def small_network() -> nn.Module:
    """A network with batch normalization and dropout for two classes."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def alone(device: torch.device) -> Any:
    """The world of a run with one process."""
    return SimpleNamespace(
        device=device,
        size=1,
        replica=0,
        replicas=1,
        total=lambda values: values.detach().cpu(),
        gather=lambda value: [value],
        from_main=lambda value: value,
    )


class Small:
    """What a trainer has, as far as a step needs it; it can be given to ``graphs.capture``."""

    def __init__(
        self,
        shards: Path,
        device: str | torch.device,
        *,
        number_format: NumberFormat = "fp32",
        network: Callable[[], nn.Module] = small_network,
        batch: int = 10,
        accumulate: int = 1,
        resident: bool | None = None,
        **recipe: Any,
    ) -> None:
        self.device = torch.device(device)
        settings = Recipe(**{"batch_size": batch, "clip_norm": 1.0, **recipe})
        self.plan = SimpleNamespace(recipe=settings, seed=3)
        self.world = alone(self.device)
        shard_set = Shards.open(shards)
        torch.manual_seed(3)
        network_module = network().to(self.device, memory_format=torch.channels_last)
        use(number_format)
        self.precision = Precision(number_format, self.device)
        self.model = WholeModel(network_module, alone(self.device), self.precision)
        self.optimizer = optimizer(network_module, settings, self.precision)
        self.average = Average(network_module, settings.ema)
        self.criterion = CrossEntropy(settings, np.array([1, 1]), self.device)
        self.update = OptimizerStep(
            self.model,
            self.optimizer,
            self.average,
            self.precision,
            self.criterion,
            settings.clip_norm,
        )
        self.training, self.validation = (
            Loader(
                shard_set,
                split,
                global_batch=batch,
                replicas=1,
                replica=0,
                accumulate=accumulate if split == "train" else 1,
                seed=3,
                training=split == "train",
                augment=AUGMENT,
                device=self.device,
                channels_last=True,
                resident=resident,
            )
            for split in ("train", "val")
        )
        self.optimize = FixedShapes(self.update, self.training.blank)
        self.logits = FixedShapes(
            lambda batches, _: self.model.logits(batches[0].inputs),
            self.validation.blank,
            labelled=False,
        )
        self.recorder = None
        self.watchdog = SimpleNamespace(rest=lambda: None)
        self.step_count = 0

    def capture(self) -> None:
        """Capture as for a GPU; on a CPU the recorder has to be a pretended one."""
        self.world.device = SimpleNamespace(type="cuda")
        if self.device.type == "cuda":
            self.world.device = self.device
        try:
            assert graphs.capture(self)  # type: ignore[arg-type]
        finally:
            self.world.device = self.device

    def train(self, steps: int, rate: float = 1e-3) -> list[float]:
        """Take steps, with a rate that changes in each; return the losses, read at the end."""
        self.model.train(True)
        losses: list[Tensor] = []
        end = self.step_count + steps
        while self.step_count < end:
            epoch, start = divmod(self.step_count, self.training.steps())
            for step in self.training.epoch(epoch, start):
                torch.manual_seed(step_seed(3, self.step_count, 0))
                set_rate(self.optimizer, rate / (1 + self.step_count))
                self.optimize(step)
                losses.append(self.update.sums[0].clone())
                self.step_count += 1
                if self.step_count == end:
                    break
        return [float(loss) for loss in losses]

    def state(self) -> list[Tensor]:
        """All tensors that a step changes, on the host."""
        return [tensor.detach().cpu().clone() for tensor in self.update.state()]


class FakeGraphs:
    """A recorder whose graphs call the work, and which can find a cause or fail."""

    def __init__(self, *, cause: str | None = None, fails: bool = False) -> None:
        self.cause, self.fails = cause, fails
        self.calls: list[str] = []

    def check(self, work: Callable[[], object]) -> str | None:
        self.calls.append("check")
        work()
        return self.cause

    def capture(self, work: Callable[[], Any]) -> Callable[[], Any]:
        self.calls.append("capture")
        if self.fails:
            raise NotCaptured("operation not permitted")

        def replay() -> Any:
            self.calls.append("replay")
            return work()

        return replay


def equal(tensors_a: list[Tensor], tensors_b: list[Tensor]) -> bool:
    """Whether tensors are equal bit for bit."""
    return len(tensors_a) == len(tensors_b) and all(map(torch.equal, tensors_a, tensors_b))


def overflow(small: Small) -> tuple[list[Tensor], list[Tensor]]:
    """Take a step whose gradient overflows in fp16, between others; return the state around it."""
    small.train(2)
    small.precision.scale.fill_(2.0**127)  # the loss is finite, but its gradients are not
    before = small.state()
    small.train(1)
    return before, small.state()
