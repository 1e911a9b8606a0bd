"""Strategy ``mp``: the network is cut into one stage per device, and micro-batches flow through."""

from __future__ import annotations

from typing import Any

from medscale.engine.parallel.strategies.strategy import Costs, Look, Setup, Strategy


def wrap(setup: Setup) -> Any:
    """Keep this rank's stage of the network."""
    from medscale.engine.parallel.pipeline import Pipeline

    return Pipeline(setup)


STRATEGY = Strategy(
    name="mp",
    title="MP",
    looks={
        "": Look("#882255", "<", (0, (6, 1, 2, 1))),
        "amp": Look("#999933", ">", (0, (3, 1, 1, 1))),
    },
    wrap=wrap,
    least=2,
    pipelined=True,
    costs=Costs(share=0.85, syncs=4, sharded=True),
)
