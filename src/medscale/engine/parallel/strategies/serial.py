"""Strategy ``serial``: training on one device."""

from __future__ import annotations

from typing import Any

from medscale.engine.parallel.strategies.strategy import Look, Setup, Strategy


def wrap(setup: Setup) -> Any:
    """Keep the network as it is."""
    from medscale.engine.parallel.model import WholeModel

    return WholeModel(setup.network, setup.world, setup.precision)


STRATEGY = Strategy(
    name="serial",
    title="serial",
    looks={"": Look("#000000", "X", (0, (1, 1))), "amp": Look("#E69F00", "D", ":")},
    wrap=wrap,
    most=1,
    detection=True,
)
