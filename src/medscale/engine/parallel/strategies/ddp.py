"""Strategy ``ddp``: each replica has the whole network and a share of each batch."""

from __future__ import annotations

from typing import Any

from medscale.engine.parallel.strategies import mp
from medscale.engine.parallel.strategies.strategy import Costs, Look, Setup, Strategy


def wrap(setup: Setup) -> Any:
    """Wrap the network for distributed data parallel training; with ``_mp`` as a pipeline."""
    if setup.stages > 1:
        return mp.wrap(setup)
    from medscale.engine.parallel.ddp import DDP

    return DDP(setup.network, setup.world, setup.precision)


STRATEGY = Strategy(
    name="ddp",
    title="DDP",
    looks={
        "": Look("#0072B2", "o", "-"),
        "amp": Look("#D55E00", "s", "--"),
        "amp_mp": Look("#009E73", "^", "-."),
        "mp": Look("#CC79A7", "v", (0, (5, 1, 1, 1, 1, 1))),
    },
    wrap=wrap,
    pipelines=True,
    detection=True,
    costs=Costs(syncs=1),
)
