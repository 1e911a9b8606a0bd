"""Changes of convolutions that keep oneDNN from wrong weight gradients on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 16  # channels that oneDNN computes at once with AVX-512; 8 with AVX2


def correct_convolutions(network: nn.Module, *, low: bool) -> None:
    """Make a network's convolutions avoid three faults of oneDNN (PyTorch 2.14) on x86 CPUs.

    Outputs stay the same, and gradients become those that other libraries compute:

    - 1x1 convolutions with a stride and fewer than 16 input channels: the weight gradient writes
      outside its memory if images are stored channels last (oneDNN issue 6035). It is wrong, or the
      process crashes or hangs. Their input is thinned out before a convolution with a stride of 1.
    - In bf16, inputs smaller than the stride, as in the last stages of networks for images below 32
      pixels: the weight gradient reads memory that nothing has written, so that it differs from
      call to call and can be NaN. Zeros are added at the right and at the bottom, up to the stride.
    - In bf16, dilated depthwise convolutions: the weight gradient is wrong from maps of about 32
      pixels on. They compute in fp32.

    Args:
        network: modules are changed in place.
        low: whether the network trains in bf16.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if max(module.stride) > 1 and _is_pointwise(module) and module.in_channels < BLOCK:
            module.register_forward_pre_hook(_Thinning(module.stride))
            module.stride = (1, 1)
        elif low and max(module.stride) > 1 and _has_half_padding(module):
            module.register_forward_pre_hook(_pad)
        elif low and max(module.dilation) > 1 and module.groups > 1:
            # A subclass keeps its own forward pass, such as that of timm's ScaledStdConv2d.
            kind = type(module)
            module.__class__ = type(kind.__name__, (_FullPrecision, kind), {})


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    return convolution.kernel_size == (1, 1) and convolution.padding in ((0, 0), "valid")


def _has_half_padding(convolution: nn.Conv2d) -> bool:
    """Whether an input up to the stride in size gives one output in each direction."""
    if isinstance(convolution.padding, str):
        return False  # has a stride of 1
    sizes = zip(convolution.padding, convolution.dilation, convolution.kernel_size, strict=True)
    return all(2 * padding == dilation * (kernel - 1) for padding, dilation, kernel in sizes)


class _Thinning:
    """A hook that keeps every n-th row and column of a convolution's input."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        self._stride = stride

    def __call__(self, convolution: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
        down, right = self._stride
        return (inputs[0][:, :, ::down, ::right],)


class _FullPrecision(nn.Conv2d):
    """A convolution that computes in fp32, whatever the format of its input and weights."""

    def forward(self, images: Tensor) -> Tensor:
        """Map n,in_channels,H,W to n,out_channels,H',W' in fp32."""
        with torch.autocast("cpu", enabled=False):
            return super().forward(images.float())

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(images, weight.float(), None if bias is None else bias.float())


def _pad(convolution: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
    assert isinstance(convolution, nn.Conv2d)
    images = inputs[0]
    down, right = (
        max(stride - side, 0)
        for stride, side in zip(convolution.stride, images.shape[2:], strict=True)
    )
    return (functional.pad(images, (0, right, 0, down)),) if down or right else None
