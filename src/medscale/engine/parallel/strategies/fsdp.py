"""Strategy ``fsdp``: parameters, gradients and optimizer state are sharded over the devices."""

from __future__ import annotations

from typing import Any

from medscale.engine.parallel.strategies.strategy import Costs, Look, Setup, Strategy


def wrap(setup: Setup) -> Any:
    """Shard the network over all ranks."""
    from medscale.engine.parallel.fsdp import shard

    return shard(setup.network, setup.world, setup.precision)


STRATEGY = Strategy(
    name="fsdp",
    title="FSDP",
    looks={"": Look("#56B4E9", "P", (0, (8, 2))), "amp": Look("#8C510A", "*", (0, (3, 1)))},
    wrap=wrap,
    # Parameters are gathered twice and gradients scattered once; an all-reduce is a scatter and a
    # gather (Rajbhandari et al., SC 2020).
    costs=Costs(share=0.9, syncs=6, traffic=1.5, sharded=True),
)
