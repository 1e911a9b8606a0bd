"""The bottleneck of a run in one sentence: rules on its numbers, of which the first that holds.

Shares are parts of the profiled window's time, mean over ranks. Attained rates come from steps
without the profiler.

| rule | condition | statement |
|---|---|---|
| data | data > 20 % | the step waits for its batch |
| imbalance | communication > 20 %, a rank computes over 20 % longer | ranks wait for the slowest |
| communication | communication > 20 % | computing does not hide the exchange between ranks |
| optimizer | optimizer > 25 % | the update of the weights takes more than a quarter |
| host | idle > 30 % | GPU: waits for kernel launches; CPU: Python and waiting outside operators |
| operators | less than 30 % of the roofline | neither ceiling is near; names the largest kind |
| bandwidth | FLOPs per byte below the ridge of the roofline | memory bandwidth is the limit |
| arithmetic | otherwise | arithmetic is the limit |

The ridge is where both ceilings meet: measured FLOP/s divided by measured bytes/s. If the traced
steps took over 50 % longer than those without the profiler, the sentence calls the shares
uncertain, since they contain the cost of tracing or of a disturbance.
"""

from dataclasses import dataclass

DATA, COMMUNICATION, OPTIMIZER, IDLE, IMBALANCE, ATTAINED = 0.20, 0.20, 0.25, 0.30, 0.20, 0.30
DISTURBED = 0.5


@dataclass(frozen=True)
class Numbers:
    """The numbers on which the rules decide."""

    # data, communication, optimizer, idle: shares of the window's time, means over ranks
    data: float
    communication: float
    optimizer: float
    idle: float
    # computing time of the busiest rank divided by that of the least busy, minus 1
    imbalance: float
    slowdown: float  # additional time of a step under the profiler, as a share of one without it
    # flops, bytes: sums of a step over all ranks
    flops: float
    bytes: float
    seconds: float  # seconds of a step without the profiler
    # ceiling_flops, ceiling_bytes: measured rates per second, over all ranks
    ceiling_flops: float
    ceiling_bytes: float
    largest: str  # the kind of computing that takes most time
    largest_share: float  # its share of the window's time
    cuda: bool  # whether the run trains on GPUs

    @property
    def intensity(self) -> float:
        """Return the FLOPs per byte."""
        return self.flops / self.bytes

    @property
    def ridge(self) -> float:
        """Return the FLOPs per byte at which both ceilings meet."""
        return self.ceiling_flops / self.ceiling_bytes

    @property
    def flops_share(self) -> float:
        """Return the attained share of the measured FLOP/s."""
        return self.flops / self.seconds / self.ceiling_flops

    @property
    def bytes_share(self) -> float:
        """Return the attained share of the measured bytes/s, by compulsory traffic."""
        return self.bytes / self.seconds / self.ceiling_bytes

    @property
    def attained_share(self) -> float:
        """Return the attained share of the ceiling that is lower at this intensity."""
        return max(self.flops_share, self.bytes_share)


def rule(numbers: Numbers) -> str:
    """Return the name of the rule that decides."""
    exchange = numbers.communication > COMMUNICATION
    order = (
        ("data", numbers.data > DATA),
        ("imbalance", exchange and numbers.imbalance > IMBALANCE),
        ("communication", exchange),
        ("optimizer", numbers.optimizer > OPTIMIZER),
        ("host", numbers.idle > IDLE),
        ("operators", numbers.attained_share < ATTAINED),
        ("bandwidth", numbers.intensity < numbers.ridge),
    )
    return next((name for name, holds in order if holds), "arithmetic")


def sentence(numbers: Numbers) -> str:
    """Return what limits the run, and the numbers that show it."""
    n = numbers
    host = (
        "the GPU has no work, because the host launches kernels too slowly: larger batches, "
        "compilation or CUDA graphs would help"
        if n.cuda
        else "passes outside operators, in Python and between calls: the operators are small"
    )
    flops = f"{_percent(n.flops_share)} of the FLOP/s of a large matrix product"
    traffic = f"{_percent(n.bytes_share)} of the bytes a second of a triad"
    sentences = {
        "data": f"the step waits for data for {_percent(n.data)} of the time",
        "imbalance": f"{_percent(n.communication)} of the time is communication that nothing hides,"
        " most of it waiting for the slowest rank, which computes "
        f"{_percent(n.imbalance)} longer than the fastest",
        "communication": f"{_percent(n.communication)} of the time is communication that computing "
        "does not hide",
        "optimizer": f"the optimizer takes {_percent(n.optimizer)} of the time: the batch is small "
        "for so many weights",
        "host": f"{_percent(n.idle)} of the time {host}",
        "operators": f"neither ceiling of the roofline is near ({flops}, {traffic}): the operators "
        f"themselves are slow at this size, and {n.largest} takes most of the time, "
        f"{_percent(n.largest_share)}",
        "bandwidth": "memory bandwidth bounds the step: its operators do "
        f"{n.intensity:.1f} FLOPs a byte, below the ridge of the roofline at {n.ridge:.1f}, and "
        f"move {traffic}",
        "arithmetic": f"arithmetic bounds the step: with {n.intensity:.1f} FLOPs a byte it is "
        f"beyond the ridge of the roofline at {n.ridge:.1f}, and attains {flops}",
    }
    uncertain = f" (uncertain: the traced steps took {_percent(n.slowdown)} longer)"
    return sentences[rule(n)] + (uncertain if n.slowdown > DISTURBED else "")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
