"""Autocast and loss scaling: fp32 and tf32, or mixed precision in bf16 or in scaled fp16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from medscale.engine.formats import NumberFormat

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # of autocast
GROW_EVERY = 2000  # steps without overflow until the scale doubles, as in torch.amp.GradScaler
FIRST, SMALLEST = 2.0**16, 2.0**-14  # the scale of the first step, and its lower limit


class Precision:
    """Autocast and loss scaling for one rank (Micikevicius et al., ICLR 2018).

    In fp16 the loss is scaled dynamically. The scale follows the norm of the whole gradient, which
    every rank knows, so that all ranks skip the same steps under any strategy. torch.amp.GradScaler
    does not suffice: it checks the gradients of its own rank only, which differ between ranks under
    FSDP and in pipelines.

    Attributes:
        format: the number format.
        dtype: torch.bfloat16, torch.float16, or None without mixed precision.
        scale: factor on the loss; 1 unless the format is fp16. A scalar on the device, as is
            ``overflow``, so that the host decides nothing in a step.
        overflow: 1 if the gradient of the last step was not finite, which the optimizer skips.
    """

    def __init__(self, name: NumberFormat, device: torch.device) -> None:
        self.format, self._device = name, device
        self.dtype = DTYPES.get(name)
        self.scale = torch.tensor(FIRST if self.scaling else 1.0, device=device)
        self.overflow = torch.tensor(0.0, device=device)
        self._good_steps = torch.tensor(0, dtype=torch.int32, device=device)

    @property
    def scaling(self) -> bool:
        """Whether the loss is scaled, so that steps can be skipped after an overflow."""
        return self.dtype is torch.float16

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self._device.type, self.dtype)

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to start the backward pass from."""
        return loss * self.scale if self.scaling else loss

    def update(self, norm: Tensor) -> None:
        """Adapt the scale to the gradient's norm, and note whether the step is to be skipped."""
        if self.scaling:
            self.overflow.copy_(~torch.isfinite(norm))
            torch._amp_update_scale_(
                self.scale, self._good_steps, self.overflow, 2.0, 0.5, GROW_EVERY
            )
            self.scale.clamp_(min=SMALLEST)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that a step changes."""
        return [self.scale, self.overflow, self._good_steps]

    def state(self) -> dict[str, float]:
        """Return the state that a checkpoint keeps; the host waits for the device."""
        if not self.scaling:
            return {}
        return {"scale": float(self.scale), "good_steps": int(self._good_steps)}

    def load(self, state: dict[str, float]) -> None:
        """Restore the state from a checkpoint.

        A checkpoint of a training in another format, on a GPU of another kind, has no scale for
        this one: fp16 begins with the first scale, and other formats have none.
        """
        if not (self.scaling and state):
            return
        self.scale.fill_(state["scale"])
        self._good_steps.fill_(int(state["good_steps"]))
