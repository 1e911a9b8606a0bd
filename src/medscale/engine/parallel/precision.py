"""Autocast and loss scaling: fp32 and tf32, or mixed precision in bf16 or in scaled fp16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from medscale.engine.formats import NumberFormat

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # of autocast
GROW_EVERY = 2000  # steps without overflow until the scale doubles, as in torch.amp.GradScaler


class Precision:
    """Autocast and loss scaling for one rank (Micikevicius et al., ICLR 2018).

    In fp16 the loss is scaled dynamically. The scale follows the norm of the whole gradient, which
    every rank knows, so that all ranks skip the same steps under any strategy. torch.amp.GradScaler
    would not do: it checks the gradients of its own rank only, which differ between ranks under
    FSDP and in pipelines.

    Attributes:
        format: the number format.
        dtype: torch.bfloat16, torch.float16, or None without mixed precision.
        scale: factor on the loss; 1 unless dtype is fp16.
    """

    def __init__(self, name: NumberFormat, device: torch.device) -> None:
        self.format, self._device = name, device
        self.dtype = DTYPES.get(name)
        self.scale = 2.0**16 if self.scaling else 1.0
        self._good_steps = 0

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

    def update(self, norm: Tensor) -> bool:
        """Adapt the scale to the gradient's norm; return False if the step must be skipped."""
        if not self.scaling:
            return True
        if not bool(torch.isfinite(norm)):
            self.scale, self._good_steps = max(self.scale / 2, 2.0**-14), 0
            return False
        self._good_steps += 1
        if self._good_steps >= GROW_EVERY:
            self.scale, self._good_steps = self.scale * 2, 0
        return True

    def state(self) -> dict[str, float]:
        """Return the state that a checkpoint keeps."""
        return {"scale": self.scale, "good_steps": self._good_steps}

    def load(self, state: dict[str, float]) -> None:
        """Restore the state from a checkpoint."""
        self.scale, self._good_steps = float(state["scale"]), int(state["good_steps"])
