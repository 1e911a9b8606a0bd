"""All parallel strategies by name. A new one is a module here and one line of ``MODULES``."""

from __future__ import annotations

from importlib import import_module

from medscale.engine.parallel.strategies.strategy import Strategy

# Full names of modules, so that digests of code follow them.
MODULES = (
    "medscale.engine.parallel.strategies.serial",
    "medscale.engine.parallel.strategies.ddp",
    "medscale.engine.parallel.strategies.fsdp",
    "medscale.engine.parallel.strategies.mp",
)
STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (import_module(name).STRATEGY for name in MODULES)
}
