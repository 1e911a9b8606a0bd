"""Apply the strategy of a run to its network."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist
from torch import nn

from medscale.engine.conflicts import refuse
from medscale.engine.parallel.cpu_convolutions import correct_convolutions
from medscale.engine.parallel.cut import Chain
from medscale.engine.parallel.model import ParallelModel
from medscale.engine.parallel.precision import Precision
from medscale.engine.parallel.strategies.registry import STRATEGIES
from medscale.engine.parallel.strategies.strategy import Setup
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan


def apply_strategy(
    network: nn.Module,
    plan: RunPlan,
    world: World,
    precision: Precision,
    chain: Callable[[], Chain],
) -> ParallelModel:
    """Spread a network over the processes of a run.

    Raises MedscaleError when the strategy does not support a setting, the network or the device.

    Args:
        network: on this rank's device, with equal weights on every rank.
        world: this rank and its peers.
        precision: number format of forward and backward passes.
        chain: see ``Setup``.
    """
    refuse(plan)
    if plan.recipe.sync_batchnorm and plan.replicas > 1:
        network = synchronized(network, world.replica_group)
    if world.device.type == "cpu":
        correct_convolutions(network, low=precision.dtype is not None)
    compiled = plan.recipe.compile == "on"
    if compiled and plan.run.stages == 1:  # a pipeline compiles its blocks
        network.compile(dynamic=False)
    setup = Setup(
        network=network,
        world=world,
        precision=precision,
        stages=plan.run.stages,
        schedule=plan.parallel.schedule,
        microbatches=plan.parallel.microbatches,
        channels_last=plan.recipe.channels_last,
        compile=compiled,
        chain=chain,
    )
    model: ParallelModel = STRATEGIES[plan.run.strategy].wrap(setup)
    return model


def synchronized(network: nn.Module, group: dist.ProcessGroup | None) -> nn.Module:
    """Return a network whose batch norms compute their statistics over the ranks of a group.

    PyTorch's own conversion would drop the activation that timm's batch norms contain.
    """
    from timm.layers import convert_sync_batchnorm  # the import takes a second

    converted: nn.Module = convert_sync_batchnorm(network, group)
    return converted
