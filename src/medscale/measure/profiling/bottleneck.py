"""What bounds a run, in one sentence, by rules from its numbers; the first rule that holds decides.

Shares are of the profiled window's time, the mean over ranks; what is attained comes from steps without the profiler.

| rule | holds where | is said |
|---|---|---|
| data | data > 20 % | the step waits for its batch |
| imbalance | communication > 20 %, and one rank computes over 20 % longer than another | ranks wait for the slowest |
| communication | communication > 20 % | the exchange between ranks is not hidden behind computing |
| optimizer | optimizer > 25 % | updating weights takes more than a quarter |
| host | idle > 30 % | GPU: it waits for the host to launch kernels; CPU: Python and waiting outside operators |
| operators | less than 30 % of the roofline is attained | neither ceiling is near; which kind takes most time |
| bandwidth | FLOPs a byte below the ridge of the roofline | memory bandwidth bounds it |
| arithmetic | else | arithmetic bounds it |

The ridge is where both ceilings meet: measured FLOP/s divided by measured bytes/s. Where the traced steps took over
half as long again as those without the profiler, it is said that the shares are uncertain: what disturbed them, or what
tracing costs, is among them.
"""

from __future__ import annotations

from dataclasses import dataclass

DATA, COMMUNICATION, OPTIMIZER, IDLE, IMBALANCE, ATTAINED = 0.20, 0.20, 0.25, 0.30, 0.20, 0.30
DISTURBED = 0.5


@dataclass(frozen=True)
class Numbers:
    """What the rules look at.

    Attributes:
        data, communication, optimizer, idle: shares of the window's time, mean over ranks.
        imbalance: computing time of the busiest rank over that of the least busy, less 1.
        slowdown: how much longer a step takes under the profiler, as a share of one without it.
        flops, bytes: of a step, over all ranks.
        seconds: of a step without the profiler.
        ceiling_flops, ceiling_bytes: measured, a second, over all ranks.
        largest: the kind of computing that takes most time.
        largest_share: its share, as above.
        cuda: whether GPUs did it.
    """

    data: float
    communication: float
    optimizer: float
    idle: float
    imbalance: float
    slowdown: float
    flops: float
    bytes: float
    seconds: float
    ceiling_flops: float
    ceiling_bytes: float
    largest: str
    largest_share: float
    cuda: bool

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes

    @property
    def ridge(self) -> float:
        """FLOPs a byte at which both ceilings meet."""
        return self.ceiling_flops / self.ceiling_bytes

    @property
    def of_flops(self) -> float:
        """Share of the measured FLOP/s that is attained."""
        return self.flops / self.seconds / self.ceiling_flops

    @property
    def of_bytes(self) -> float:
        """Share of the measured bytes/s that is attained, by the operators' compulsory traffic."""
        return self.bytes / self.seconds / self.ceiling_bytes

    @property
    def attained(self) -> float:
        """Share of the roofline that is attained: of the ceiling that is lower at this many FLOPs a byte."""
        return max(self.of_flops, self.of_bytes)


def rule(numbers: Numbers) -> str:
    """Name of the rule that decides."""
    exchange = numbers.communication > COMMUNICATION
    order = (
        ("data", numbers.data > DATA),
        ("imbalance", exchange and numbers.imbalance > IMBALANCE),
        ("communication", exchange),
        ("optimizer", numbers.optimizer > OPTIMIZER),
        ("host", numbers.idle > IDLE),
        ("operators", numbers.attained < ATTAINED),
        ("bandwidth", numbers.intensity < numbers.ridge),
    )
    return next((name for name, holds in order if holds), "arithmetic")


def sentence(numbers: Numbers) -> str:
    """What bounds the run, with the numbers that say so."""
    n = numbers
    said = {
        "data": f"the step waits for data for {_percent(n.data)} of the time",
        "imbalance": f"{_percent(n.communication)} of the time is communication that nothing hides, most of it waiting "
        f"for the slowest rank, which computes {_percent(n.imbalance)} longer than the fastest",
        "communication": f"{_percent(n.communication)} of the time is communication that computing does not hide",
        "optimizer": f"the optimizer takes {_percent(n.optimizer)} of the time: the batch is small for so many weights",
        "host": f"{_percent(n.idle)} of the time "
        + (
            "the GPU has no work, because the host launches kernels too slowly: larger batches, compilation or CUDA "
            "graphs would help"
            if n.cuda
            else "passes outside operators, in Python and between calls: the operators are small"
        ),
        "operators": f"neither ceiling of the roofline is near ({_percent(n.of_flops)} of the FLOP/s of a large matrix "
        f"product, {_percent(n.of_bytes)} of the bytes a second of a triad): the operators themselves are slow at this "
        f"size, and {n.largest} takes most of the time, {_percent(n.largest_share)}",
        "bandwidth": f"memory bandwidth bounds the step: its operators do {n.intensity:.1f} FLOPs a byte, below the "
        f"ridge of the roofline at {n.ridge:.1f}, and move {_percent(n.of_bytes)} of the bytes a second of a triad",
        "arithmetic": f"arithmetic bounds the step: with {n.intensity:.1f} FLOPs a byte it is beyond the ridge of the "
        f"roofline at {n.ridge:.1f}, and attains {_percent(n.of_flops)} of the FLOP/s of a large matrix product",
    }
    doubt = (
        f" (uncertain: the traced steps took {_percent(n.slowdown)} longer)"
        if n.slowdown > DISTURBED
        else ""
    )
    return said[rule(n)] + doubt


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
