"""Small stand-ins for the network and the loss of ultralytics, to test the rest of detection.

They have no batch normalization, and the loss is divided by the number of boxes of all replicas, as
that of ultralytics is by the sum of their scores. So all strategies must agree.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from medscale.engine.detect import yolo
from medscale.engine.detect.task import Detection  # noqa: F401 (used with these stand-ins)

STRIDE = 8


class ToyNet(nn.Module):
    """Map images (n,3,H,W) to n,5,A, with a cell for every 8x8 pixels.

    The five values are the offset of the centre, the logarithm of the sides, and the confidence.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 8), (8, 16), (16, 24)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GELU()]
        self.body = nn.Sequential(
            *layers, nn.Conv2d(24, 24, 3, padding=1), nn.GELU(), nn.Conv2d(24, 5, 1)
        )
        nn.init.constant_(self.body[-1].bias[4:], -3.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images).flatten(2)


class ToyLoss:
    """Each true box teaches the cell that its centre lies in."""

    judges = ranks = False

    def __init__(
        self, network: nn.Module, size: int, sum_over_replicas: Callable[..., None]
    ) -> None:
        self._cells = size // STRIDE
        self._sum_over_replicas = sum_over_replicas
        rows, columns = torch.meshgrid(
            torch.arange(self._cells), torch.arange(self._cells), indexing="ij"
        )
        self._centres = (torch.stack([columns, rows], -1).view(-1, 2) + 0.5) / self._cells

    def __call__(self, raw: Tensor, boxes: Tensor) -> Tensor:
        image, place = (boxes[..., 2] > 0).nonzero(as_tuple=True)
        corner, sides = boxes[image, place].split(2, dim=1)
        centre = corner + sides / 2
        column, row = (centre * self._cells).long().clamp(max=self._cells - 1).T
        cell = row * self._cells + column
        sure = torch.zeros(len(raw), raw.shape[2])
        sure[image, cell] = 1
        cell_outputs = raw[image, :, cell]
        loss = functional.binary_cross_entropy_with_logits(raw[:, 4], sure, reduction="sum")
        loss += functional.l1_loss(
            cell_outputs[:, :2], (centre - self._centres[cell]) * self._cells, reduction="sum"
        )
        loss += functional.l1_loss(cell_outputs[:, 2:4], sides.log(), reduction="sum")
        return loss * self._images_a_box(len(raw), len(sides))

    def _images_a_box(self, images: int, boxes: int) -> Tensor:
        totals = torch.tensor([float(images), float(boxes)])
        self._sum_over_replicas([totals])
        return totals[0] / totals[1].clamp(min=1)

    def correct(self, raw: Tensor, boxes: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.int64)

    def join(self) -> None:
        self._images_a_box(0, 0)

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        centre = self._centres + raw[:, :2].permute(0, 2, 1) / self._cells
        half = raw[:, 2:4].permute(0, 2, 1).exp() / 2
        return torch.cat([centre - half, centre + half], 2).clamp(0, 1), raw[:, 4].sigmoid()


yolo.build = lambda model: ToyNet()
yolo.BoxLoss = ToyLoss
