"""The device that networks predict on."""

from __future__ import annotations

import torch

from medscale.base.errors import MedscaleError


def usable_device(name: str | None) -> torch.device:
    """Return a device by its name; without one, the GPU if there is one.

    Raises MedscaleError for a device of another kind, and for a GPU that PyTorch cannot use.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise MedscaleError(f"device {name!r}: {str(error).splitlines()[0]}") from None
    if device.type not in ("cpu", "cuda"):
        raise MedscaleError(f"device {name!r}: networks run on cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MedscaleError(f"device {name!r}: there is no GPU here that PyTorch can use")
    return device
