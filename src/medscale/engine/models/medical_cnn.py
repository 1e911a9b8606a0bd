"""medical_cnn: a residual network with squeeze-and-excitation and a multi-dilated block."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError

STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))  # width factor and stride of each residual stage
BLOCKS = 2  # residual blocks per stage
DILATIONS = (1, 2, 3)  # so that 3x3 branches cover the last 7x7 map of a 224-pixel image


class MedicalCNN(nn.Sequential):
    """The network of the published glaucoma project, with 22.5 million parameters.

    Input: float, shape n,in_channels,H,W, H and W at least 32 (224 in the study, 64 in the demo).
    Output: logits, shape n,num_classes.

    It has four residual stages of basic blocks (He et al., CVPR 2016) with squeeze-and-excitation
    (Hu et al., CVPR 2018), a multi-dilated block (ASPP; Chen et al. 2017, DeepLabv3), global
    average pooling and a deep MLP head with dropout: 129 leaf modules. Weights are initialized as
    in He et al. (ICCV 2015). The modules run in the order in which they are declared.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        width: channels of the first stage; other stages scale with it.
        dropout: probability after the multi-dilated block and each hidden layer of the head.

    Raises:
        MedscaleError: for a width below 4 or a dropout outside [0, 1).
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, *, width: int = 64, dropout: float = 0.3
    ) -> None:
        if width < 4 or not 0 <= dropout < 1:
            raise MedscaleError(
                f"medical_cnn: width {width} and dropout {dropout}: "
                "width is at least 4, dropout in [0, 1)"
            )
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_stem(in_channels, width))
        channels = width
        for number, (factor, stride) in enumerate(STAGES, start=1):
            parts[f"stage{number}"] = _stage(channels, factor * width, stride)
            channels = factor * width
        parts["context"] = MultiDilated(channels, dropout)
        parts["pool"] = nn.AdaptiveAvgPool2d(1)
        parts["flatten"] = nn.Flatten()
        parts["head"] = _head(
            channels, (16 * width, 16 * width, 16 * width, 4 * width), num_classes, dropout
        )
        super().__init__(parts)
        self.apply(_initialize)


class Residual(nn.Module):
    """Two 3x3 convolutions with squeeze-and-excitation, added to the input.

    Where the shape changes, the input is projected by a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.excite = SqueezeExcitation(outputs)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map n,inputs,H,W to n,outputs,H/stride,W/stride."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.excite(y) + (x if self.shortcut is None else self.shortcut(x)))


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from all channels' means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor with the shape of the input."""
        return x * self.gate(self.expand(self.relu(self.reduce(self.squeeze(x)))))


class MultiDilated(nn.Module):
    """Parallel 1x1 and dilated 3x3 convolutions, joined by a 1x1 convolution (ASPP)."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_unit(channels, channels, 1)])
        self.branches.extend(_unit(channels, channels, 3, dilation) for dilation in DILATIONS)
        self.project = _unit(len(self.branches) * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor with the shape of the input."""
        return self.dropout(self.project(torch.cat([branch(x) for branch in self.branches], dim=1)))


def _stem(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, width, 7, stride=2, padding=3, bias=False),
            bn=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(inputs, outputs, stride),
        *(Residual(outputs, outputs, 1) for _ in range(BLOCKS - 1)),
    )


def _unit(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
            bn=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(inplace=True),
        )
    )


def _head(inputs: int, hidden: tuple[int, ...], num_classes: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


NETWORKS = {"medical_cnn": MedicalCNN}
