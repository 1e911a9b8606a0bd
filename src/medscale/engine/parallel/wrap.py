"""Which strategy a run's plan names, applied to a plain module: the one place where that is decided."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from medscale.base.errors import MedscaleError
from medscale.engine.parallel.cut import Block, Cut
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies import DDP, Strategy, Whole
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan


def wrap(
    network: nn.Module,
    plan: RunPlan,
    world: World,
    precision: Precision,
    chain: Callable[[], tuple[list[Block], Cut]],
) -> Strategy:
    """Apply a run's strategy to a plain module on this rank's device.

    Args:
        network: the same weights on every rank.
        plan: the run.
        world: this rank's place.
        precision: number format of forward and backward passes.
        chain: gives, where a pipeline asks for it, the network as a chain of blocks and where to cut it.

    Raises:
        MedscaleError: for what the strategy cannot do with this network or device.
    """
    if plan.recipe.sync_batchnorm and plan.run.replicas > 1:
        if world.device.type == "cpu":
            raise MedscaleError(
                "recipe.sync_batchnorm needs GPUs: PyTorch's SyncBatchNorm refuses the CPU"
            )
        if plan.run.stages > 1:
            raise MedscaleError(
                "recipe.sync_batchnorm goes with DDP and FSDP, not with a pipeline (mp)"
            )
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network, world.mesh["dp"].get_group())
    if plan.run.stages > 1:
        if plan.model.metadata or plan.model.trained != "all":
            raise MedscaleError(
                f"{plan.run.name}: a pipeline (mp) trains the whole network on images alone; model.metadata and "
                "model.trained go with serial, DDP and FSDP"
            )
        from medscale.engine.parallel.pipeline import (
            pipeline,  # these two imports take a second: only where they are used
        )

        return pipeline(network, plan, world, precision, *chain())
    if plan.recipe.compile:
        network.compile()
    if plan.run.strategy == "fsdp":
        from medscale.engine.parallel.fsdp import fsdp

        return fsdp(network, world, precision)
    if plan.run.strategy == "ddp":
        return DDP(network, world, precision)
    return Whole(network, network, world, precision)
