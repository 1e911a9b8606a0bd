"""Small networks: xray_cnn of the pneumonia study, and tiny_cnn for tests of strategies."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from medscale.base.errors import MedscaleError


class XrayCNN(nn.Sequential):
    """The published pneumonia classifier: two convolutions and two fully connected layers.

    Input: float, shape n,in_channels,H,W. Output: logits, shape n,num_classes. The published
    network ends in a sigmoid, which the loss and the evaluation contain here. Raises MedscaleError
    for a size that two max-poolings do not divide, or an impossible width, hidden or dropout.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        size: height and width of the images in pixels; None: any size from 32, as the last map is
            averaged to 8x8.
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the first fully connected layer.
        dropout: probability before the last layer.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        size: int | None = 128,
        width: int = 32,
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        if size is not None and (size < 4 or size % 4):
            raise MedscaleError(
                f"xray_cnn: size {size} is no multiple of 4; give another, or null for any size"
            )
        if min(width, hidden) < 1 or not 0 <= dropout < 1:
            raise MedscaleError("xray_cnn: width and hidden are at least 1, dropout is in [0, 1)")
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for number, inputs, outputs in ((1, in_channels, width), (2, width, 2 * width)):
            parts[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
            parts[f"relu{number}"] = nn.ReLU(inplace=True)
            parts[f"pool{number}"] = nn.MaxPool2d(2)
        side = 8 if size is None else size // 4
        if size is None:
            parts["average"] = nn.AdaptiveAvgPool2d(side)
        parts["flatten"] = nn.Flatten()
        parts["fc1"] = nn.Linear(2 * width * side * side, hidden)
        parts["relu3"] = nn.ReLU(inplace=True)
        parts["dropout"] = nn.Dropout(dropout)
        parts["fc2"] = nn.Linear(hidden, num_classes)
        super().__init__(parts)


class TinyCNN(nn.Sequential):
    """A network without normalization, for tests only.

    Batch statistics depend on how a batch is cut. Without them, all parallel strategies give the
    same result in fp32. Input: float, shape n,in_channels,H,W of at least 4x4 pixels. Output:
    logits, shape n,num_classes.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, width: int = 8) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, width, 3, stride=2, padding=1),
                act1=nn.GELU(),
                conv2=nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                act2=nn.GELU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc1=nn.Linear(2 * width, 4 * width),
                act3=nn.GELU(),
                fc2=nn.Linear(4 * width, num_classes),
            )
        )


NETWORKS = {"xray_cnn": XrayCNN, "tiny_cnn": TinyCNN}
