"""RunSpec: the one typed object a run is; its name and its fields convert both ways."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from medscale.base.errors import MedscaleError

Strategy = Literal["serial", "ddp", "fsdp", "mp"]
Device = Literal["cpu", "gpu"]

STRATEGIES = ("serial", "ddp", "fsdp", "mp")
GRAMMAR = "<strategy>[_amp][_mp]_<n><cpu|gpu>[_bs<batch>][_<model>]"
EXAMPLES = (
    "serial_1cpu, ddp_16cpu, serial_1gpu_bs64, ddp_amp_mp_4gpu, fsdp_3gpu, ddp_amp_4gpu_densenet121"
)
_MODEL = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RESERVED = re.compile(r"(amp|mp|bs\d*|\d+(cpu|gpu))(_.*)?")


class RunSpec(BaseModel):
    """One configuration of a study, as its name says it.

    Attributes:
        strategy: how training is spread over processes.
        amp: automatic mixed precision (bf16, or fp16 with gradient scaling where bf16 is missing).
        mp: model parallel inside each DDP replica (a 2-D device mesh).
        devices: number of devices, which is the world size.
        device: the kind of device asked for.
        batch: batch size a device that replaces the recipe's; None keeps the recipe's.
        model: model that replaces the study's; None keeps the study's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Strategy
    devices: int
    device: Device
    amp: bool = False
    mp: bool = False
    batch: int | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        for wrong, message in (
            (self.devices < 1, "the number of devices is at least 1"),
            (self.batch is not None and self.batch < 1, "the batch size is at least 1"),
            (self.strategy == "serial" and self.devices != 1, "a serial run has exactly 1 device"),
            (
                self.strategy == "mp" and self.devices < 2,
                "a model-parallel run (mp) needs at least 2 devices",
            ),
            (
                self.mp and self.strategy != "ddp",
                "_mp goes with ddp only; plain model parallel is strategy mp",
            ),
            (
                self.mp and self.devices % 2 != 0,
                "ddp with _mp has 2 devices a replica: the number must be even",
            ),
            (
                self.model is not None
                and (not _MODEL.fullmatch(self.model) or _RESERVED.fullmatch(self.model)),
                f"{self.model!r} is no model name (lower case letters, digits and _, as in timm)",
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self

    @property
    def name(self) -> str:
        """The run's name, from which ``parse`` gives back an equal RunSpec."""
        parts = [self.strategy, *(["amp"] if self.amp else []), *(["mp"] if self.mp else [])]
        parts.append(f"{self.devices}{self.device}")
        parts += [f"bs{self.batch}"] if self.batch is not None else []
        return "_".join([*parts, *([self.model] if self.model is not None else [])])

    @classmethod
    def parse(cls, name: str) -> RunSpec:
        """Read a run's name.

        Raises:
            MedscaleError: saying which part of the name is wrong and what is allowed there.
        """
        tokens = name.split("_")
        fields: dict[str, object] = {"strategy": tokens.pop(0)}
        if fields["strategy"] not in STRATEGIES:
            raise _wrong(
                name,
                f"it begins with {fields['strategy']!r}; a strategy is one of {', '.join(STRATEGIES)}",
            )
        for flag in ("amp", "mp"):
            if tokens and tokens[0] == flag:
                fields[flag] = bool(tokens.pop(0))
        devices = tokens.pop(0) if tokens else ""
        match = re.fullmatch(r"([1-9]\d*)(cpu|gpu)", devices)
        if not match:
            raise _wrong(
                name,
                f"after the strategy comes a number of devices such as 2gpu or 8cpu, not {devices!r}",
            )
        fields |= {"devices": int(match[1]), "device": match[2]}
        if tokens and re.fullmatch(r"bs.*", tokens[0]):
            if not (batch := re.fullmatch(r"bs([1-9]\d*)", tokens[0])):
                raise _wrong(
                    name,
                    f"{tokens[0]!r} is no batch size; write bs and a whole number, such as bs64",
                )
            fields["batch"] = int(batch[1])
            tokens.pop(0)
        if tokens:
            fields["model"] = "_".join(tokens)
        try:
            return cls.model_validate(fields)
        except ValueError as error:
            raise _wrong(name, _first_message(error)) from None

    @property
    def stages(self) -> int:
        """Devices that one copy of the model is spread over by pipelining (1: not at all)."""
        return self.devices if self.strategy == "mp" else 2 if self.mp else 1

    @property
    def replicas(self) -> int:
        """Processes (or groups of stages) that each see their own share of the global batch."""
        return self.devices // self.stages


def _wrong(name: str, why: str) -> MedscaleError:
    return MedscaleError(
        f"{name!r} is no run name: {why}.\n  A run's name is {GRAMMAR}, for example {EXAMPLES}."
    )


def _first_message(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    return str(errors()[0]["msg"]).removeprefix("Value error, ") if errors else str(error)
