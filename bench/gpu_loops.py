"""Training loops that a user would write, on synthetic batches in the memory of a GPU.

`python -m bench.gpu_loops NETWORK SIZE BATCH FORMAT WAY...` prints one line of JSON for each way.
"""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from medscale.engine.formats import NumberFormat, lacking, use
from medscale.engine.models.registry import build
from medscale.engine.parallel.precision import DTYPES
from medscale.engine.plan import Model
from medscale.engine.run import is_detector
from medscale.engine.train.clock import Meter
from medscale.measure.profiling import ceilings
from medscale.measure.profiling.spans import length, union
from medscale.measure.profiling.work import Work, count_work
from medscale.serve.batches import capture

CLASSES = 35
SECONDS = 1.0  # of a measurement
WARM_UP = 12  # steps before it
TRACED = 5  # steps whose kernels are traced, for the gaps between them
Step = Callable[[], object]
Loss = Callable[[Any, Tensor], Tensor]


@dataclass
class Parts:
    """A network with its loss, optimizer and one batch, on the GPU."""

    network: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    images: Tensor
    targets: Tensor
    dtype: torch.dtype | None  # of autocast
    batch: int

    def autocast(self) -> Any:
        """Return the context of the forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast("cuda", self.dtype)


@dataclass(frozen=True)
class Way:
    """A loop: its title in tables, and whether layout, compiler and graph are used."""

    title: str
    channels_last: bool = True
    compiled: bool = False
    graph: bool = False
    package: str = ""  # that runs the loop


WAYS = {
    "nchw": Way("plain loop, NCHW", channels_last=False),
    "nhwc": Way("plain loop, NHWC"),
    "compiled": Way("plain loop, compiled", compiled=True),
    "graph": Way("plain loop, whole step as a CUDA graph", graph=True),
    "compiled_graph": Way("plain loop, compiled, as a CUDA graph", compiled=True, graph=True),
    "lightning": Way("Lightning", package="lightning"),
    "accelerate": Way("Accelerate", package="accelerate"),
}


def main(
    network: str, size: int, batch: int, name: str, ways: list[str], gaps: bool = True
) -> None:
    """Measure ways on one network, batch size and number format; gaps: roofline and gaps, too."""
    warnings.simplefilter("ignore")
    for way in ways:
        row = measured(network, size, batch, name, way, gaps)  # type: ignore[arg-type]
        print(json.dumps({"way": way} | row), flush=True)


def measured(
    network: str, size: int, batch: int, name: NumberFormat, way: str, gaps: bool
) -> dict[str, Any]:
    """Return a row of one way; ``note`` has the cause of what cannot be measured."""
    device = torch.device("cuda")
    if (reason := lacking(name, device)) is not None:
        return {"note": reason}
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        start = perf_counter()
        parts = assemble(network, size, batch, name, WAYS[way])
        step = make_step(parts, name, WAYS[way])
        for _ in range(WARM_UP):
            step()
        torch.cuda.synchronize()
        row = {"setup_s": perf_counter() - start} | timed(step, batch)
    except Exception as error:
        return {"note": cause(error)}
    try:
        return row | (efficiency(parts, step, name, device) if gaps else {})
    except Exception as error:
        return row | {"note": f"roofline and gaps: {cause(error)}"}


def cause(error: Exception) -> str:
    """Return one line that names an error."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return (str(error).strip().splitlines() or [repr(error)])[0][:200]


def assemble(network: str, size: int, batch: int, name: NumberFormat, way: Way) -> Parts:
    """Build network, loss, optimizer and batch as the documentation of PyTorch and timm says."""
    torch.manual_seed(0)
    use(name)
    torch.backends.cudnn.benchmark = True
    form = torch.channels_last if way.channels_last else torch.contiguous_format
    module, loss, targets = _task(network, size, batch)
    module = module.cuda().train().to(memory_format=form)
    images = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=form)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True, capturable=way.graph)
    if way.compiled:
        module.compile(dynamic=False)
    return Parts(module, loss, optimizer, images, targets, DTYPES.get(name), batch)


def _task(network: str, size: int, batch: int) -> tuple[nn.Module, Loss, Tensor]:
    """Return the network, its loss and a batch of targets."""
    if is_detector(network):
        from medscale.engine.detect import yolo

        detector = yolo.build(Model(name=network)).cuda()
        boxes = torch.full((batch, 1, 4), 0.25, device="cuda")
        criterion = yolo.BoxLoss(detector, size)
        return detector, lambda raw, truth: criterion(raw.float(), truth), boxes
    module = build(Model(name=network), CLASSES)
    labels = torch.randint(0, CLASSES, (batch,), device="cuda")
    return module, lambda logits, y: nn.functional.cross_entropy(logits.float(), y), labels


def make_step(parts: Parts, name: NumberFormat, way: Way) -> Step:
    """Return a function that trains one step."""
    if way.package == "accelerate":
        return _accelerate(parts, name)
    if way.package == "lightning":
        return _lightning(parts, name)
    scaler = torch.amp.GradScaler("cuda") if name == "fp16" else None

    def step() -> None:
        parts.optimizer.zero_grad(set_to_none=True)
        with parts.autocast():
            loss = parts.loss(parts.network(parts.images), parts.targets)
        if scaler is None:
            loss.backward()
            parts.optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(parts.optimizer)
            scaler.update()

    return capture(step) if way.graph else step


def _accelerate(parts: Parts, name: NumberFormat) -> Step:
    from accelerate import Accelerator

    precision = name if name in DTYPES else "no"
    accelerator = Accelerator(mixed_precision=precision)
    network, optimizer = accelerator.prepare(parts.network, parts.optimizer)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = parts.loss(network(parts.images), parts.targets)
        accelerator.backward(loss)
        optimizer.step()

    return step


def _lightning(parts: Parts, name: NumberFormat) -> Step:
    """Return a step by Lightning's Fabric, which leaves the loop to the user."""
    from lightning.fabric import Fabric

    precision = f"{name.removeprefix('bf').removeprefix('fp')}-mixed" if name in DTYPES else "32"
    precision = f"bf{precision}" if name == "bf16" else precision
    fabric = Fabric(accelerator="cuda", devices=1, precision=precision)
    network, optimizer = fabric.setup(parts.network, parts.optimizer)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(parts.loss(network(parts.images), parts.targets))
        optimizer.step()

    return step


def timed(step: Step, batch: int) -> dict[str, Any]:
    """Return images a second, peak memory and energy over about ``SECONDS``."""
    device = torch.device("cuda", torch.cuda.current_device())
    start = perf_counter()
    step()
    torch.cuda.synchronize()
    count = max(3, int(SECONDS / (perf_counter() - start)))
    meter = Meter(device)
    start = perf_counter()
    for _ in range(count):
        step()
    torch.cuda.synchronize()
    seconds = perf_counter() - start
    joules = meter.joules()
    meter.use_percent()  # ends the meter's thread
    return {
        "images_per_second": batch * count / seconds,
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20,
        "joules_image": None if joules is None else joules / (batch * count),
    }


def efficiency(
    parts: Parts, step: Step, name: NumberFormat, device: torch.device
) -> dict[str, float]:
    """Return the seconds of a step at the measured ceilings, and the share of time without kernels.

    FLOPs and bytes are those of the operators of one uncompiled step (``profiling.work``); the
    ceiling that is lower at their ratio counts (Williams, Waterman & Patterson 2009).
    """
    ceiling, work = ceilings.measure(device, name), Work()
    with count_work(work), parts.autocast():
        parts.loss(parts.network(parts.images), parts.targets).backward()
    flops, traffic = sum(work.flops.values()), sum(work.bytes.values())
    least = max(flops / ceiling["flops"], traffic / ceiling["bytes"])
    return {"roofline_s": least, "gap": gap(step)}


def gap(step: Step) -> float:
    """Return the share of some traced steps in which no kernel runs."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        start = perf_counter()
        for _ in range(TRACED):
            step()
        torch.cuda.synchronize()
        seconds = perf_counter() - start
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]
    busy = length(union(np.array(kernels, np.float64).reshape(-1, 2)))  # microseconds
    return 1 - min(1.0, busy / 1e6 / seconds)


if __name__ == "__main__":
    typer.run(main)
