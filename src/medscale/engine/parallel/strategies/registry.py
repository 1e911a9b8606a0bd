"""All parallel strategies by name. A new one is a module here, imported and listed below."""

from __future__ import annotations

from medscale.engine.parallel.strategies import ddp, fsdp, mp, serial
from medscale.engine.parallel.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    module.STRATEGY.name: module.STRATEGY for module in (serial, ddp, fsdp, mp)
}
