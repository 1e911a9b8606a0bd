"""Loading by PyTorch and torchvision, image by image: what the package's own loader is measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from medscale.base.errors import MedscaleError
from medscale.config.sections import Preprocess
from medscale.data.augment import MEAN, STD
from medscale.data.preprocess import preprocess
from medscale.data.shards import Shards
from medscale.engine.plan import Augment

Sample = tuple[Tensor, int]
Batch = tuple[Tensor, Tensor]


def changes(augment: Augment) -> list[v2.Transform]:
    """The study's augmentation as torchvision has it, for PIL images and for tensors; no class is changed more."""
    if augment.gamma or augment.noise:
        raise MedscaleError(
            "augment.gamma and augment.noise have no like in torchvision: loading cannot be compared"
        )
    wanted: list[v2.Transform] = []
    if augment.rotate:
        wanted.append(
            v2.RandomRotation(augment.rotate, interpolation=v2.InterpolationMode.BILINEAR)
        )
    if (crop := augment.crop) is not None and crop.mode == "random":
        wanted.append(v2.RandomCrop(crop.size))
    elif crop is not None:
        wanted.append(
            v2.RandomResizedCrop(crop.size, (crop.smallest, 1.0), (1 / crop.ratio, crop.ratio))
        )
    wanted += [v2.RandomHorizontalFlip(augment.hflip)] if augment.hflip else []
    wanted += [v2.RandomVerticalFlip(augment.vflip)] if augment.vflip else []
    if augment.brightness or augment.contrast:
        wanted.append(v2.ColorJitter(augment.brightness, augment.contrast))
    return wanted


def transform(augment: Augment) -> v2.Compose:
    """Augmentation, then float32 in [0, 1] of shape C,H,W, then normalization."""
    return v2.Compose(
        [
            *changes(augment),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


class Photographs(Dataset[Sample]):
    """Raw files as most projects load them: PIL decodes, torchvision changes, one image at a time.

    Args:
        paths: image files.
        labels: class codes in the same order.
        settings: the study's preprocessing; PIL brings an image to its size, the other steps are the package's.
        augment: the study's augmentation.
    """

    def __init__(
        self, paths: Sequence[Path], labels: np.ndarray, settings: Preprocess, augment: Augment
    ) -> None:
        self._paths, self._labels = list(paths), labels
        self._steps = settings
        self._change = transform(augment)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Sample:
        with Image.open(self._paths[number]) as opened:
            image: Any = to_size(opened.convert("RGB"), self._steps)
        if (self._steps.clahe, self._steps.gamma, self._steps.median) != (None, None, None):
            image = Image.fromarray(preprocess(np.asarray(image), self._steps))
        return self._change(image), int(self._labels[number])


def to_size(image: Image.Image, settings: Preprocess) -> Image.Image:
    """Bring a PIL image to the study's size as torchvision does."""
    if settings.fit == "cover":
        return v2.functional.center_crop(
            v2.functional.resize(image, [settings.size]), [settings.size] * 2
        )
    return v2.functional.resize(image, [settings.size, settings.size])


class Preprocessed(Dataset[Sample]):
    """The training images of a shard set, changed one at a time: by torchvision, unless ``change`` is given.

    Args:
        shards: the opened shard set.
        augment: the study's augmentation.
        change: from uint8 H,W,C to a float tensor C,H,W, instead of torchvision.
    """

    def __init__(
        self, shards: Shards, augment: Augment, change: Callable[[np.ndarray], Tensor] | None = None
    ) -> None:
        self._shards, self._positions = shards, shards.positions("train")
        self._change = change or Changed(augment)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> Sample:
        position = self._positions[number : number + 1]
        return self._change(self._shards.gather(position)[0]), int(self._shards.labels[position[0]])


class Changed:
    """A preprocessed image (uint8, H,W,C) as torchvision changes it: float32, C,H,W."""

    def __init__(self, augment: Augment) -> None:
        self._change = transform(augment)

    def __call__(self, image: np.ndarray) -> Tensor:
        """Change one image."""
        changed: Tensor = self._change(torch.from_numpy(image).permute(2, 0, 1))
        return changed


class Order(Sampler[int]):
    """The positions that are set, in that order: another order each pass for workers that stay."""

    def __init__(self) -> None:
        self.positions: list[int] = []

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)


def by_dataloader(
    data: Dataset[Sample], batch: int, workers: int = 0
) -> Callable[[np.ndarray], Iterator[Batch]]:
    """PyTorch's DataLoader; a function from positions to their batches."""
    order = Order()
    loader = DataLoader(
        data, batch, sampler=order, num_workers=workers, persistent_workers=workers > 0
    )

    def batches(positions: np.ndarray) -> Iterator[Batch]:
        order.positions = positions.tolist()
        yield from ((images, labels) for images, labels in loader)

    return batches


def by_hand(data: Dataset[Sample], batch: int) -> Callable[[np.ndarray], Iterator[Batch]]:
    """A plain loop over the positions, stacked into batches; a function from positions to their batches."""

    def batches(positions: np.ndarray) -> Iterator[Batch]:
        for start in range(0, len(positions), batch):
            images, labels = zip(
                *(data[int(one)] for one in positions[start : start + batch]), strict=True
            )
            yield torch.stack(images), torch.tensor(labels)

    return batches
