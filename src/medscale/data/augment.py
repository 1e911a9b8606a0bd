"""Augmentation of whole batches on the training device; a sample's changes depend on (seed, epoch, sample) alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medscale.config import Augment
from medscale.data.random import AUGMENT, uniform

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB in [0, 1]; the usual normalization of pretrained networks
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Augmenter:
    """Draws each sample's changes on the host and applies them to a batch where the batch is.

    Classes with fewer training images than the mean class size get every strength times ``settings.minority``
    (class-aware augmentation). A flip is most random at probability 0.5: the factor raises it to 0.5 at most.

    Attributes:
        settings: the strengths.
        class_counts: training images a class, shape K.
        seed: the replicate's seed.
    """

    settings: Augment
    class_counts: np.ndarray
    seed: int

    def draw(self, epoch: int, ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Changes of the samples ``ids`` (int64, shape n) of classes ``labels`` (int64, shape n) in an epoch.

        Returns:
            float32, shape (n, 5): angle in radians, sign of x and of y (-1: flipped), and the factors of
            brightness and of contrast. A row depends on its own sample alone.
        """
        s = self.settings
        small = self.class_counts < self.class_counts.mean()
        strength = np.where(small, s.minority, 1.0).astype(np.float32)[labels]
        angle, hflip, vflip, brightness, contrast = uniform(self.seed, AUGMENT, epoch, ids, 5).T
        return np.stack(
            [
                (2 * angle - 1) * strength * np.float32(math.radians(s.rotate)),
                np.where(hflip < np.minimum(s.hflip * strength, max(s.hflip, 0.5)), -1, 1),
                np.where(vflip < np.minimum(s.vflip * strength, max(s.vflip, 0.5)), -1, 1),
                1 + (2 * brightness - 1) * np.minimum(strength * s.brightness, 1),
                1 + (2 * contrast - 1) * np.minimum(strength * s.contrast, 1),
            ],
            axis=1,
        ).astype(np.float32)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change images (uint8, shape n,C,H,W) by ``draws`` (float32, shape n,5, same device).

        Brightness scales intensities, contrast scales their distance from the image's mean, as in torchvision.

        Returns:
            float32 in [0, 1], shape n,C,H,W.
        """
        angle, flip_x, flip_y, brightness, contrast = draws.T[:, :, None, None, None]
        mean = images.sum((1, 2, 3), dtype=torch.int64, keepdim=True) / (255 * max(images[0:1].numel(), 1))
        pixels = images.float()
        if self.settings.rotate or self.settings.hflip or self.settings.vflip:
            pixels = turn(pixels, angle[:, 0], flip_x[:, 0], flip_y[:, 0])
        pixels = pixels * (brightness * contrast / 255) + brightness * (1 - contrast) * mean
        return pixels.clamp_(0, 1)


def turn(images: Tensor, angle: Tensor, flip_x: Tensor, flip_y: Tensor) -> Tensor:
    """Rotate about the centre, then flip, by bilinear interpolation; the border is mirrored.

    Args:
        images: float, shape n,C,H,W.
        angle: radians, shape n,1,1.
        flip_x: -1 mirrors left and right, 1 does not; shape n,1,1.
        flip_y: -1 mirrors top and bottom, 1 does not; shape n,1,1.
    """
    height, width = images.shape[2:]
    x = (torch.arange(width, device=images.device) - (width - 1) / 2)[None, None, :] * flip_x
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[None, :, None] * flip_y
    sin, cos = torch.sin(angle), torch.cos(angle)
    grid = torch.stack([(cos * x - sin * y) * (2 / width), (sin * x + cos * y) * (2 / height)], dim=-1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def normalize(pixels: Tensor) -> Tensor:
    """Bring float RGB in [0, 1], shape n,3,H,W, to ImageNet's mean 0 and standard deviation 1 a channel."""
    mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (MEAN, STD))
    return pixels.sub_(mean).div_(std)
