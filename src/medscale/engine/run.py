"""RunSpec: the configuration of a run, which its name states completely."""

import re
from functools import cache
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from medscale.base.errors import MedscaleError
from medscale.engine.parallel.strategies.registry import STRATEGIES

Device = Literal["cpu", "gpu"]

GRAMMAR = "<strategy>[_amp][_mp]_<n><cpu|gpu>[_bs<batch>][_<model>]"
EXAMPLES = (
    "serial_1cpu, ddp_16cpu, serial_1gpu_bs64, ddp_amp_mp_4gpu, fsdp_3gpu, ddp_amp_4gpu_densenet121"
)
MOST_DEVICES, LARGEST_BATCH = 100_000, 1_000_000
_MODEL = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RESERVED = re.compile(r"(amp|mp|bs[^_]*|\d+(cpu|gpu))(_.*)?")


def is_detector(model: str) -> bool:
    """Return whether a model's name is that of a detector (YOLOv8 of any size)."""
    return re.fullmatch(r"yolov8[nsmlx]", model) is not None


class RunSpec(BaseModel):
    """One configuration of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str  # how training is spread over processes; a name of ``STRATEGIES``
    devices: int  # number of devices, which is the world size
    device: Device  # the kind of device
    # automatic mixed precision; recipe.half names its format
    amp: bool = False
    mp: bool = False  # each replica is a pipeline of two devices
    batch: int | None = None  # recipe.batch_size of this run; None: the recipe's
    model: str | None = None  # network of this run; None: the study's

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (strategy := STRATEGIES.get(self.strategy)) is None:
            raise ValueError(f"a strategy is one of {', '.join(STRATEGIES)}")
        name_fits = self.model is None or (
            _MODEL.fullmatch(self.model) and not _RESERVED.fullmatch(self.model)
        )
        pipelines = ", ".join(s.name for s in STRATEGIES.values() if s.pipelines)
        for wrong, message in (
            (not 1 <= self.devices <= MOST_DEVICES, f"there are 1 to {MOST_DEVICES} devices"),
            (
                self.batch is not None and not 1 <= self.batch <= LARGEST_BATCH,
                f"the batch size is 1 to {LARGEST_BATCH}",
            ),
            ((refusal := strategy.refusal(self.devices)) is not None, refusal),
            (
                self.mp and not strategy.pipelines,
                f"_mp goes with {pipelines} only; plain model parallel is strategy mp",
            ),
            (
                self.mp and self.devices % 2 != 0,
                "each replica of a run with _mp has 2 devices: the number must be even",
            ),
            (
                not name_fits,
                f"{self.model!r} is no model name (lower case letters, digits and _, as in timm)",
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self

    @property
    def name(self) -> str:
        """The run's name; ``parse`` returns an equal RunSpec for it."""
        parts = [self.strategy, *["amp"] * self.amp, *["mp"] * self.mp]
        parts.append(f"{self.devices}{self.device}")
        parts += [f"bs{self.batch}"] if self.batch is not None else []
        return "_".join([*parts, *([self.model] if self.model is not None else [])])

    @classmethod
    def parse(cls, name: str) -> "RunSpec":
        """Read a run's name.

        Raises MedscaleError stating which part of the name is wrong and what is allowed there.
        """
        return _parse(name)

    @classmethod
    def is_name(cls, name: str) -> bool:
        """Whether a text is a run's name."""
        try:
            _parse(name)
        except MedscaleError:
            return False
        return True

    @property
    def stages(self) -> int:
        """Devices that one replica is spread over as a pipeline; 1: no pipeline."""
        return self.devices if STRATEGIES[self.strategy].pipelined else 2 if self.mp else 1

    @property
    def replicas(self) -> int:
        """Copies of the network that each train on a share of the global batch."""
        return self.devices // self.stages


@cache  # the same few names are parsed thousands of times to plan a study
def _parse(name: str) -> RunSpec:
    tokens = name.split("_")
    fields: dict[str, object] = {"strategy": tokens.pop(0)}
    if fields["strategy"] not in STRATEGIES:
        strategies = ", ".join(STRATEGIES)
        raise _invalid_name(
            name, f"it begins with {fields['strategy']!r}; a strategy is one of {strategies}"
        )
    for flag in ("amp", "mp"):
        if tokens and tokens[0] == flag:
            fields[flag] = bool(tokens.pop(0))
    devices = tokens.pop(0) if tokens else ""
    if not (match := re.fullmatch(r"([1-9][0-9]{0,17})(cpu|gpu)", devices)):
        raise _invalid_name(
            name,
            f"after the strategy comes a number of devices such as 2gpu or 8cpu, not {devices!r}",
        )
    fields |= {"devices": int(match[1]), "device": match[2]}
    if tokens and tokens[0].startswith("bs"):
        token = tokens.pop(0)
        if not (batch := re.fullmatch(r"bs([1-9][0-9]{0,17})", token)):
            raise _invalid_name(
                name, f"{token!r} is no batch size; write bs and a whole number, such as bs64"
            )
        fields["batch"] = int(batch[1])
    if tokens:
        fields["model"] = "_".join(tokens)
    try:
        return RunSpec.model_validate(fields)
    except ValueError as error:
        raise _invalid_name(name, _first_message(error)) from None


def _invalid_name(name: str, reason: str) -> MedscaleError:
    return MedscaleError(
        f"{name!r} is no run name: {reason}.\n  A run's name is {GRAMMAR}, for example {EXAMPLES}."
    )


def _first_message(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    return str(errors()[0]["msg"]).removeprefix("Value error, ") if errors else str(error)
