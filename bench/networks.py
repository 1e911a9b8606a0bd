"""Count operations, activations and parameters of each network: the rows of `cost.networks`.

`python -m bench.networks [--scale demo]` prints them as YAML for config.yaml. Both counts are for
the forward pass of one image: operations by PyTorch's FlopCounterMode, activations as the elements
that modules without children return.
"""

from __future__ import annotations

from typing import Any

import torch
import typer
from torch import Tensor, nn
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from medscale.base.code import ROOT
from medscale.config.configuration import load
from medscale.config.planning import plan
from medscale.engine.models import registry
from medscale.engine.plan import Model
from medscale.engine.run import is_detector
from medscale.resources import compute
from medscale.resources.machines import Network

# Of networks whose study finds its classes on disk; the last layer is a small part of any network.
CLASSES = 35
UNCOUNTED = ("share", "width")  # of a row of `cost.networks`: written by hand


def main(scale: str = "full") -> None:
    """Print a row for each network of the configured runs, at its training size."""
    config = load(ROOT / "config.yaml", {"scale": scale})
    rows: dict[str, Network] = {}
    for study, settings in config.studies.items():
        if settings.external_of is not None:  # nothing is trained on external images
            continue
        for run in settings.runs:
            run_plan = plan(config, study, run, 1)
            if run_plan.model.name not in rows:
                classes = len(settings.classes or range(CLASSES))
                rows[run_plan.model.name] = count(
                    run_plan.model, compute.pixels(config, run_plan), classes
                )
    for name, row in rows.items():
        print(
            f"    {name}: {{"
            + ", ".join(f"{key}: {value:.4g}" for key, value in row if key not in UNCOUNTED)
            + "}"
        )


def count(model: Model, size: int, classes: int) -> Network:
    """Count a network's operations, activations and parameters for images of ``size`` pixels."""
    network, elements = _build(model, classes).eval(), 0

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal elements
        elements += sum(leaf.numel() for leaf in tree_iter(output) if isinstance(leaf, Tensor))

    for module in network.modules():
        if not any(module.children()):
            module.register_forward_hook(add)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    operations = flops.get_total_flops() / 1e9
    return Network(
        size=size, gflops=operations, activations_m=elements / 1e6, parameters_m=parameters / 1e6
    )


def _build(model: Model, classes: int) -> nn.Module:
    if is_detector(model.name):
        from medscale.engine.detect.yolo import build

        return build(model.model_copy(update={"pretrained": None}))
    return registry.build(model.model_copy(update={"pretrained": None, "trained": "all"}), classes)


if __name__ == "__main__":
    typer.run(main)
