"""Convolutions whose stride exceeds their input: right gradients in bf16 on a CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def pad_small_maps(network: nn.Module) -> None:
    """Make a network's convolutions pad inputs that are smaller than their stride, with zeros.

    Training in bf16 on a CPU needs it. For such inputs, oneDNN's weight gradient on CPUs with AMX
    reads memory that nothing has written (PyTorch 2.14): it differs from call to call and can be
    NaN. The last stages of networks for images below 32 pixels have such inputs, of 1x1 at a stride
    of 2. Zeros at the right and at the bottom, up to the stride, change neither outputs nor
    gradients, as the padding of these convolutions is half of what their kernel spans.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and _has_half_padding(module):
            module.register_forward_pre_hook(_pad)


def _has_half_padding(convolution: nn.Conv2d) -> bool:
    """Whether an input up to the stride in size gives one output in each direction."""
    if isinstance(convolution.padding, str):
        return False  # has a stride of 1
    sizes = zip(convolution.padding, convolution.dilation, convolution.kernel_size, strict=True)
    return all(2 * padding == dilation * (kernel - 1) for padding, dilation, kernel in sizes)


def _pad(convolution: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
    assert isinstance(convolution, nn.Conv2d)
    images = inputs[0]
    down, right = (
        max(stride - side, 0)
        for stride, side in zip(convolution.stride, images.shape[2:], strict=True)
    )
    return (functional.pad(images, (0, right, 0, down)),) if down or right else None
