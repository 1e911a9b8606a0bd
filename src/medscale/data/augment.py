"""Augments batches on the training device.

The random changes of a sample depend on (seed, epoch, sample) alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medscale.data.ahead import upload
from medscale.data.random import AUGMENT, uniform
from medscale.engine.plan import Augment

# Mean and standard deviation of ImageNet's RGB in [0, 1]: the normalization of most pretrained
# networks.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FLIP_CODES = {(True, False): 1, (False, True): 0, (True, True): -1}  # OpenCV's code of (x, y)
NOISE_LENGTH = 2**20  # length of a sequence of normal random numbers; noise is a window of it


@dataclass(frozen=True)
class Changes:
    """Random changes of n samples; row i depends only on sample i."""

    # float32, shape n,2,3: pixel (x, y) of the result is pixel ``matrix @ (x, y, 1)`` of the image
    matrix: Tensor
    brightness: Tensor  # factor on intensities, float32, shape n
    contrast: Tensor  # factor on the distance of intensities from their mean, float32, shape n
    gamma: Tensor  # exponent of intensities in [0, 1], float32, shape n
    noise: Tensor  # standard deviation of normal noise (white is 1), float32, shape n
    start: Tensor  # position of the window of random numbers for the noise, int64, shape n

    def to(self, device: torch.device) -> Changes:
        """Return the changes on another device."""
        return Changes(**{f.name: upload(getattr(self, f.name), device) for f in fields(self)})


@dataclass(frozen=True)
class Augmenter:
    """Crops, augments and normalizes uint8 images for a network.

    Changes are drawn on the host and applied on the device of the images: on the CPU by OpenCV, one
    image at a time; on other devices by PyTorch, a whole batch at a time. The results differ by
    rounding, since the CPU rounds to uint8 after the geometric change. The order is: crop, rotation
    and flips in one bilinear resampling with mirrored borders (without resampling if all changes
    are shifts and flips); gamma; brightness; contrast around the changed mean; noise; clipping.

    Classes with fewer training images than the mean class size have all strengths multiplied by
    ``settings.minority`` (class-aware augmentation). This raises the probability of a flip to 0.5
    at most, at which flips are most random.
    """

    settings: Augment  # strengths of the changes
    class_counts: np.ndarray  # training images by class, shape K
    seed: int  # the replicate's seed

    def draw(
        self, epoch: int, ids: np.ndarray, labels: np.ndarray, size: tuple[int, int]
    ) -> Changes:
        """Draw the random changes of samples in an epoch.

        Args:
            epoch: number of the epoch.
            ids: ids of the samples, int64, shape n.
            labels: class codes of the samples, int64, shape n.
            size: height and width of the images.
        """
        s = self.settings
        small = self.class_counts < self.class_counts.mean()
        strength = np.where(small, s.minority, 1.0).astype(np.float32)[labels]
        u = uniform(self.seed, AUGMENT, epoch, ids, 12).T
        flip_x, flip_y = (
            np.where(draw < np.minimum(p * strength, max(p, 0.5)), -1, 1)
            for draw, p in ((u[1], s.hflip), (u[2], s.vflip))
        )
        width, height, x, y = self._region(u[8:12], size)
        angle = (2 * u[0] - 1) * strength * math.radians(s.rotate)
        return Changes(
            matrix=_matrix(angle, flip_x, flip_y, (width, height), (x, y), self.side(size)),
            brightness=_tensor(1 + (2 * u[3] - 1) * np.minimum(strength * s.brightness, 1)),
            contrast=_tensor(1 + (2 * u[4] - 1) * np.minimum(strength * s.contrast, 1)),
            gamma=_tensor((1 + strength * s.gamma) ** (2 * u[5] - 1)),
            noise=_tensor(u[6] * strength * s.noise),
            start=torch.from_numpy((u[7] * NOISE_LENGTH).astype(np.int64)),
        )

    def neutral(self, count: int, size: tuple[int, int]) -> Changes:
        """Return changes that only crop the middle of images of height and width ``size``."""
        side = self.side(size)
        ones, zeros = np.ones(count), np.zeros(count)
        y, x = (w // 2 - s // 2 + s / 2 + zeros for w, s in zip(size, side, strict=True))
        matrix = _matrix(zeros, ones, ones, (zeros + side[1], zeros + side[0]), (x, y), side)
        factor = _tensor(ones)
        return Changes(
            matrix, factor, factor, factor, _tensor(zeros), torch.zeros(count, dtype=torch.int64)
        )

    def side(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the network's input for images of ``size`` (height, width)."""
        crop = self.settings.crop
        return size if crop is None else (crop.size, crop.size)

    def apply(self, images: Tensor, changes: Changes, *, training: bool = True) -> Tensor:
        """Apply changes to images, and normalize them.

        Args:
            images: uint8, shape n,H,W,C.
            changes: changes of the images, on their device.
            training: False skips noise and resampling, which ``neutral`` changes do not need.

        Returns:
            float32, shape n,C,h,w in channels-last memory, normalized by ImageNet's mean and
            standard deviation.
        """
        noisy = training and self.settings.noise > 0
        exact = not training or self._exact
        if images.device.type == "cpu":
            pixels = self._on_host(images, changes, exact=exact, normal=not noisy)
        else:
            pixels = self._on_device(images, changes, exact=exact)
        if noisy:
            noise = changes.noise.view(-1, 1, 1, 1) * self._noise(changes.start, pixels)
            pixels = (pixels + noise).clamp_(0, 1)
        if noisy or images.device.type != "cpu":
            pixels = normalize(pixels)
        return pixels

    @property
    def _exact(self) -> bool:
        """Whether all geometric changes are flips and shifts by whole pixels."""
        crop = self.settings.crop
        return not self.settings.rotate and (crop is None or crop.mode == "random")

    def _region(self, u: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
        """Return width, height and centre (x, y) of the visible parts, in pixels."""
        height, width = size
        crop = self.settings.crop
        if crop is None:
            return tuple(
                np.full(u.shape[1], value, np.float64)
                for value in (width, height, width / 2, height / 2)
            )
        if crop.mode == "random":
            left, top = (
                np.floor(draw * (whole - crop.size + 1))
                for draw, whole in ((u[0], width), (u[1], height))
            )
            side = np.full(u.shape[1], crop.size, np.float64)
            return side, side, left + crop.size / 2, top + crop.size / 2
        area = (crop.smallest + u[2].astype(np.float64) * (1 - crop.smallest)) * width * height
        ratio = crop.ratio ** (2 * u[3].astype(np.float64) - 1)
        w, h = np.minimum(np.sqrt(area * ratio), width), np.minimum(np.sqrt(area / ratio), height)
        return w, h, w / 2 + u[0] * (width - w), h / 2 + u[1] * (height - h)

    def _on_host(self, images: Tensor, changes: Changes, *, exact: bool, normal: bool) -> Tensor:
        """Apply changes by OpenCV, image by image.

        With ``normal`` the lookup table of intensities also normalizes.
        """
        source = images.numpy()
        height, width = self.side((images.shape[1], images.shape[2]))
        result = np.empty((len(source), height, width, source.shape[3]), np.float32)
        means = torch.tensor([np.mean(cv2.mean(image)[: source.shape[3]]) for image in source])
        levels = torch.arange(256).float().div(255).repeat(len(source), 1)
        table = self._tone(levels, changes, means.float() / 255)
        tables = table[:, None, :, None].repeat(1, source.shape[3], 1, 1)  # n,C,256,1
        tables = (normalize(tables) if normal else tables)[..., 0].transpose(1, 2).contiguous()
        for target, image, place, tone in zip(
            result, source, changes.matrix.numpy(), tables.numpy(), strict=True
        ):
            move = _shift if exact else _warp
            cv2.LUT(move(image, place, height, width), tone[None], target)
        return torch.from_numpy(result).permute(0, 3, 1, 2)

    def _on_device(self, images: Tensor, changes: Changes, *, exact: bool) -> Tensor:
        """Apply changes by PyTorch to the whole batch; float32 in [0, 1], not normalized."""
        pixels = images.permute(0, 3, 1, 2)
        mean = pixels.sum((1, 2, 3), dtype=torch.int64) / (255 * max(images[0:1].numel(), 1))
        pixels = pixels.float()
        side = self.side((images.shape[1], images.shape[2]))
        flips = self.settings.hflip or self.settings.vflip
        if flips or not exact or side != tuple(pixels.shape[2:]):
            pixels = sample(pixels, changes.matrix, side)
        return self._tone(pixels.div_(255), changes, mean.float())

    def _tone(self, values: Tensor, changes: Changes, mean: Tensor) -> Tensor:
        """Apply gamma, brightness and contrast to values in [0, 1].

        Args:
            values: shape n,….
            changes: changes of the n images.
            mean: mean intensity of each image, shape n.
        """
        shape = (-1, *[1] * (values.dim() - 1))
        gamma, brightness, contrast = (
            v.view(shape) for v in (changes.gamma, changes.brightness, changes.contrast)
        )
        if self.settings.gamma:
            values, mean = values**gamma, mean**changes.gamma
        shift = brightness * (1 - contrast) * mean.view(shape)
        return (values * (brightness * contrast) + shift).clamp_(0, 1)

    def _noise(self, start: Tensor, like: Tensor) -> Tensor:
        """Return normal random numbers in the shape of ``like`` (n,C,h,w).

        Each sample has a window of one long sequence, which is faster than drawing new numbers.
        """
        length = max(like[0:1].numel(), 1)
        windows = _noise_sequence(self.seed, length, like.device).unfold(0, length, 1)[start]
        return windows.view(len(start), *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2)


def sample(images: Tensor, matrix: Tensor, side: tuple[int, int]) -> Tensor:
    """Resample images bilinearly with mirrored borders.

    Args:
        images: float, shape n,C,H,W.
        matrix: float32, shape n,2,3, as in ``Changes``.
        side: height h and width w of the result.

    Returns:
        Shape n,C,h,w.
    """
    height, width = images.shape[2:]
    y, x = (torch.arange(length, device=images.device, dtype=torch.float32) for length in side)
    column_x, column_y, shift = (column[..., None, None] for column in matrix.unbind(-1))
    position = column_x * x + column_y * y[:, None] + shift  # n,2,h,w
    scale = _constant((2 / width, 2 / height), images.device)
    grid = (position.permute(0, 2, 3, 1) + 0.5) * scale - 1
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def normalize(pixels: Tensor) -> Tensor:
    """Normalize float RGB in [0, 1], shape n,3,H,W, in place, by ImageNet's mean and deviation."""
    mean, std = (_constant(v, pixels.device).view(3, 1, 1) for v in (MEAN, STD))
    return pixels.sub_(mean).div_(std)


def _matrix(
    angle: np.ndarray,
    flip_x: np.ndarray,
    flip_y: np.ndarray,
    part: tuple[np.ndarray, np.ndarray],
    centre: tuple[np.ndarray, np.ndarray],
    side: tuple[int, int],
) -> Tensor:
    """Return ``Changes.matrix``, which maps a turned and flipped part of an image to the result.

    Args:
        angle: rotation in radians, shape n.
        flip_x, flip_y: -1 for a flip, otherwise 1, shape n.
        part: width and height of the part in pixels, each of shape n.
        centre: x and y of the part's centre in pixels, each of shape n.
        side: height and width of the result in pixels.
    """
    across, down = part[0] / side[1] * flip_x, part[1] / side[0] * flip_y
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.stack(
        [np.stack([cos * across, -sin * down], -1), np.stack([sin * across, cos * down], -1)], -2
    )
    middle = np.array([(side[1] - 1) / 2, (side[0] - 1) / 2])
    shift = np.stack(centre, -1) - 0.5 - linear @ middle
    return _tensor(np.concatenate([linear, shift[..., None]], -1))


def _shift(image: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Flip and shift an image by whole pixels, without resampling; shape height,width,C."""
    flips = matrix[0, 0] < 0, matrix[1, 1] < 0
    left = round(float(matrix[0, 2])) - (width - 1 if flips[0] else 0)
    top = round(float(matrix[1, 2])) - (height - 1 if flips[1] else 0)
    part = image[top : top + height, left : left + width]
    return cv2.flip(part, FLIP_CODES[flips]) if any(flips) else np.ascontiguousarray(part)


def _warp(image: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resample an image bilinearly with mirrored borders; shape height,width,3.

    The computation has four channels, for which OpenCV is faster than for three.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    rgba = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    warped = cv2.warpAffine(
        rgba, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


@lru_cache(2)
def _noise_sequence(seed: int, length: int, device: torch.device) -> Tensor:
    """Return the sequence of random numbers, repeated so that a window of a length fits into it."""
    numbers = np.random.default_rng(seed).standard_normal(NOISE_LENGTH, np.float32)
    repeated = torch.from_numpy(numbers).repeat(length // NOISE_LENGTH + 2)
    return repeated[: NOISE_LENGTH + length].to(device)


@lru_cache(64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a tensor; the copy to a device, for which the host waits, happens once."""
    return torch.tensor(values, device=device)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
