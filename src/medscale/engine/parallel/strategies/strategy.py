"""The declaration of a parallel strategy, which can be read without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from medscale.base.text import amount

if TYPE_CHECKING:
    from torch import nn

    from medscale.engine.parallel.cut import Chain
    from medscale.engine.parallel.precision import Precision
    from medscale.engine.parallel.world import World


class Look(NamedTuple):
    """How figures draw a group of runs: colour as #RRGGBB, Matplotlib's marker and line style."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Costs:
    """What the cost model assumes about a strategy on several devices.

    ``share`` and ``syncs`` are defaults, which the configuration can change (``cost.strategies``).
    """

    share: float = 1.0  # part of the devices' speed that is kept, without the bytes exchanged
    syncs: float = 0.0  # how often devices wait for each other in an optimizer step
    traffic: float = 1.0  # bytes exchanged, relative to one all-reduce of the gradients
    # whether parameters, gradients and optimizer state are divided among all devices; otherwise
    # each replica holds all of them
    sharded: bool = False


@dataclass(frozen=True)
class Setup:
    """A network that is to be trained, and the settings that strategies need to wrap it."""

    network: nn.Module  # on this rank's device, with equal weights on every rank
    world: World  # this rank and its peers
    precision: Precision  # number format of forward and backward passes
    stages: int  # devices that one replica is spread over
    schedule: str  # order of a pipeline's micro-batches, ``gpipe`` or ``1f1b``
    microbatches: int  # micro-batches of a pipeline per accumulation step
    channels_last: bool  # whether images are stored channels last
    compile: bool  # whether the network is compiled
    # function that returns the network as a chain of blocks, and where to cut it into stages; only
    # pipelines call it, since it times the blocks
    chain: Callable[[], Chain]


@dataclass(frozen=True)
class Strategy:
    """One way to spread a training over devices."""

    name: str  # the first part of a run's name; lower-case letters and digits
    title: str  # the name in tables and figures
    # how figures draw its runs, by the flags of a run's name: "" (none), "amp", "mp", "amp_mp". A
    # combination without an entry is drawn as ""
    looks: Mapping[str, Look]
    # function that applies the strategy to a network and returns a
    # ``parallel.model.ParallelModel``; it imports PyTorch itself
    wrap: Callable[[Setup], Any]
    least: int = 1  # smallest number of devices
    most: int | None = None  # largest number of devices; None: no limit
    pipelined: bool = False  # whether all devices of a run form one pipeline
    pipelines: bool = False  # whether each replica can be a pipeline of two devices (``_mp``)
    detection: bool = False  # whether detectors can be trained by it
    costs: Costs = Costs()  # assumptions of the cost model

    def look(self, *, amp: bool, mp: bool) -> Look:
        """Return how figures draw runs with these flags."""
        flags = "_".join(["amp"] * amp + ["mp"] * mp)
        return self.looks.get(flags, self.looks[""])

    def refusal(self, devices: int) -> str | None:
        """Return why a run cannot have this many devices; None if it can."""
        if self.least == self.most != devices:
            return f"a {self.name} run has exactly {amount(self.least, 'device')}"
        if devices < self.least:
            return f"a {self.name} run needs at least {self.least} devices"
        if self.most is not None and devices > self.most:
            return f"a {self.name} run has at most {self.most} devices"
        return None
