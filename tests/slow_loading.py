"""A classification whose second rank loads its training images for longer than the first."""

from __future__ import annotations

import time

from medscale.data.loader import Loader
from medscale.engine.parallel.world import World
from medscale.engine.train.task import Classification

LATE_S = 3.0


class LateClassification(Classification):
    """See ``Classification``; the second rank is late."""

    def loader(self, split: str, world: World) -> Loader:
        """See ``Task``."""
        result = super().loader(split, world)
        if split == "train" and world.rank == 1:
            result.load = lambda: time.sleep(LATE_S)  # type: ignore[method-assign]
        return result
