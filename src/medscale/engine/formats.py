"""Number formats of convolutions and matrix products: their names, and those that a device has.

fp32 is IEEE single precision. tf32 is TensorFloat-32: inputs are rounded to 10 bits of mantissa and
sums are fp32 (NVIDIA A100 white paper, 2020). bf16 and fp16 are the formats of mixed precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from medscale.base.errors import MedscaleError

if TYPE_CHECKING:
    import torch

    from medscale.engine.plan import RunPlan

NumberFormat = Literal["fp32", "tf32", "bf16", "fp16"]
FORMATS: tuple[NumberFormat, ...] = get_args(NumberFormat)
Half = Literal["auto", "bf16", "fp16"]
FIRST_WITH_TF32 = (8, 0)  # compute capability of Ampere
LACKING_ON_CPU = {  # formats in which a CPU does not compute, and why
    "tf32": "TF32 is a format of GPUs (NVIDIA, from the A100 on)",
    "fp16": "mixed precision in fp16 is for GPUs; on a CPU it is bf16",
}


def in_format(plan: RunPlan, name: NumberFormat, epochs: int | None, seed: int) -> RunPlan:
    """Return the plan of a replicate in a number format; ``epochs``: None for the recipe's."""
    amp = name in ("bf16", "fp16")
    changes: dict[str, Any] = {"tf32": name == "tf32", "half": name if amp else "auto"}
    if epochs is not None:
        changes |= {"epochs": epochs, "steps": None}
    return plan.model_copy(
        update={
            "seed": seed,
            "run": plan.run.model_copy(update={"amp": amp}),
            "recipe": plan.recipe.model_copy(update=changes),
        }
    )


def format_of(plan: RunPlan, device: torch.device) -> NumberFormat:
    """Return the format that a run is trained in on a device; see ``number_format``."""
    return number_format(plan.run.amp, plan.recipe.tf32, plan.recipe.half, device)


def number_format(amp: bool, tf32: bool, half: Half, device: torch.device) -> NumberFormat:
    """Return the format of a network on a device.

    Raises MedscaleError when ``half`` names a format that the device lacks.

    Args:
        amp: whether the run has mixed precision.
        tf32: without mixed precision, use tf32 where the device has it.
        half: format of mixed precision; auto is bf16, or fp16 where the device has no bf16.
        device: of the network.
    """
    if not amp:
        return "tf32" if tf32 and lacking("tf32", device) is None else "fp32"
    if half == "auto":
        return "bf16" if lacking("bf16", device) is None else "fp16"
    if (reason := lacking(half, device)) is not None:
        raise MedscaleError(f"recipe.half is {half}, but {reason}; leave recipe.half out (auto)")
    return half


def lacking(name: NumberFormat, device: torch.device) -> str | None:
    """Return why a device does not compute in a format; None if it does."""
    import torch

    if device.type == "cpu":
        return LACKING_ON_CPU.get(name)
    card = torch.cuda.get_device_name(device)
    if name == "tf32" and torch.cuda.get_device_capability(device) < FIRST_WITH_TF32:
        return f"the {card} has no TF32"
    if name == "bf16":
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                return f"the {card} has no bf16"
    return None


def use(name: NumberFormat) -> None:
    """Allow or forbid TF32 in this process's convolutions and matrix products of fp32 tensors.

    These are the older of PyTorch's two sets of switches: where the newer ones (``fp32_precision``)
    are set, inductor's reading of the older ones raises an error (PyTorch 2.9 to 2.14).
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    torch.backends.cudnn.allow_tf32 = name == "tf32"


@contextmanager
def using(name: NumberFormat) -> Iterator[None]:
    """Allow or forbid TF32 as ``use`` does, during the block: the process may have other work."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    use(name)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
