"""The same training in other loops: plain PyTorch, Lightning, Accelerate.

Network, optimizer and batches are the package's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import torch
import typer
from torch import Tensor, nn

from bench.inputs import training_loader
from medscale.base.files import read_json, write_json
from medscale.data.shards import Shards
from medscale.engine.models.registry import build
from medscale.engine.plan import RunPlan


class Epochs:
    """The package's loader as an iterable of (images, labels), another epoch each time."""

    def __init__(self, plan: RunPlan, shards: Shards) -> None:
        self._loader = training_loader(
            shards, plan.global_batch, plan.augment, plan.seed, plan.recipe.channels_last
        )
        self._epoch = 0

    def __len__(self) -> int:
        return self._loader.steps()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in self._loader.epoch(self._epoch):
            yield step.batches[0].images, step.batches[0].labels
        self._epoch += 1


def bare(
    network: nn.Module, optim: torch.optim.Optimizer, data: Epochs, plan: RunPlan
) -> list[float]:
    """Train in plain PyTorch, and return the seconds of each epoch."""
    seconds = []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, plan.recipe.epochs * len(data))
    for _ in range(plan.recipe.epochs):
        start = perf_counter()
        for images, labels in data:
            optim.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(images), labels).backward()
            if plan.recipe.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), plan.recipe.clip_norm)
            optim.step()
            schedule.step()
        seconds.append(perf_counter() - start)
    return seconds


def accelerated(
    network: nn.Module, optim: torch.optim.Optimizer, data: Epochs, plan: RunPlan
) -> list[float]:
    """Train with Hugging Face's Accelerate, and return the seconds of each epoch."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    network, optim = accelerator.prepare(network, optim)
    schedule = accelerator.prepare(
        torch.optim.lr_scheduler.CosineAnnealingLR(optim, plan.recipe.epochs * len(data))
    )
    seconds = []
    for _ in range(plan.recipe.epochs):
        start = perf_counter()
        for images, labels in data:
            optim.zero_grad(set_to_none=True)
            accelerator.backward(nn.functional.cross_entropy(network(images), labels))
            if plan.recipe.clip_norm:
                accelerator.clip_grad_norm_(network.parameters(), plan.recipe.clip_norm)
            optim.step()
            schedule.step()
        seconds.append(perf_counter() - start)
    return seconds


def lightning(
    network: nn.Module, optim: torch.optim.Optimizer, data: Epochs, plan: RunPlan
) -> list[float]:
    """Train with PyTorch Lightning, and return the seconds of each epoch."""
    from lightning.pytorch import Callback, LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> dict[str, object]:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
                optim, plan.recipe.epochs * len(data)
            )
            return {"optimizer": optim, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Timer(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
            self.start = perf_counter()

        def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
            seconds.append(perf_counter() - self.start)

    seconds: list[float] = []
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=plan.recipe.epochs,
        gradient_clip_val=plan.recipe.clip_norm,
        callbacks=[Timer()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), data)
    return seconds


KINDS: dict[str, Callable[[nn.Module, torch.optim.Optimizer, Epochs, RunPlan], list[float]]] = {
    "bare": bare,
    "accelerate": accelerated,
    "lightning": lightning,
}


def train_two(spec: Path, shards: Path, out: Path) -> None:
    """Run two independent plain loops, one a core, and write the seconds of the slower one.

    This is the speedup that the machine itself allows.
    """
    folders = [out / str(core) for core in range(2)]
    started = []
    for core, folder in enumerate(folders):
        folder.mkdir()
        arguments = ["bare", str(spec), str(shards), str(folder), "--core", str(core)]
        started.append(subprocess.Popen([sys.executable, "-m", "bench.loops", *arguments]))
    if any([process.wait() for process in started]):  # noqa: C419 (wait for all)
        raise SystemExit("one of the loops failed")
    by_process = [read_json(folder / "seconds.json")["epoch_seconds"] for folder in folders]
    write_json(
        out / "seconds.json",
        {"epoch_seconds": [max(epoch) for epoch in zip(*by_process, strict=True)]},
    )


def main(kind: str, spec: Path, shards: Path, out: Path, core: int = 0) -> None:
    """Train a plan in another loop on one core, and write the seconds of each epoch."""
    if kind == "two-at-once":
        train_two(spec, shards, out)
        return
    warnings.simplefilter("ignore")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[core : core + 1])
    torch.set_num_threads(1)
    plan, opened = RunPlan.model_validate(read_json(spec)), Shards.open(shards)
    torch.manual_seed(plan.seed)
    network = build(plan.model, len(opened.classes), opened.shape[2])
    if plan.recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    recipe = plan.recipe
    assert recipe.optimizer == "adam"
    optim = torch.optim.Adam(
        network.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    write_json(
        out / "seconds.json",
        {"epoch_seconds": KINDS[kind](network.train(), optim, Epochs(plan, opened), plan)},
    )


if __name__ == "__main__":
    typer.run(main)
