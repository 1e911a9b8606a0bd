"""Loading image by image with PyTorch and torchvision, for comparison with the package's loader."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from medscale.base.errors import MedscaleError
from medscale.data.augment import MEAN, STD
from medscale.data.preprocess import preprocess
from medscale.data.settings import Preprocess
from medscale.engine.plan import Augment

Sample = tuple[Tensor, int]
Batch = tuple[Tensor, Tensor]


def changes(augment: Augment) -> list[v2.Transform]:
    """Return the study's augmentation as transforms of torchvision, for PIL images and tensors.

    All classes have the same augmentation: ``augment.minority`` has no effect here.

    Raises:
        MedscaleError: for gamma or noise, which torchvision lacks.
    """
    if augment.gamma or augment.noise:
        raise MedscaleError(
            "torchvision has neither augment.gamma nor augment.noise, so loading cannot be "
            "compared; set both to 0, or benchmarks.loading to null"
        )
    transforms: list[v2.Transform] = []
    if augment.rotate:
        transforms.append(
            v2.RandomRotation(augment.rotate, interpolation=v2.InterpolationMode.BILINEAR)
        )
    if (crop := augment.crop) is not None and crop.mode == "random":
        transforms.append(v2.RandomCrop(crop.size))
    elif crop is not None:
        transforms.append(
            v2.RandomResizedCrop(crop.size, (crop.smallest, 1.0), (1 / crop.ratio, crop.ratio))
        )
    transforms += [v2.RandomHorizontalFlip(augment.hflip)] if augment.hflip else []
    transforms += [v2.RandomVerticalFlip(augment.vflip)] if augment.vflip else []
    if augment.brightness or augment.contrast:
        transforms.append(v2.ColorJitter(augment.brightness, augment.contrast))
    return transforms


def transform(augment: Augment) -> v2.Compose:
    """Return augmentation, conversion to float32 in [0, 1] (C,H,W), and normalization."""
    return v2.Compose(
        [
            *changes(augment),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


class Photographs(Dataset[Sample]):
    """Raw files, loaded in the common way: PIL decodes and torchvision augments single images.

    Torchvision also resizes; this package does the other steps of ``settings``, the study's
    preprocessing.
    """

    def __init__(
        self, paths: Sequence[Path], labels: np.ndarray, settings: Preprocess, augment: Augment
    ) -> None:
        self._paths, self._labels = list(paths), labels
        self._settings, self._transform = settings, transform(augment)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Sample:
        with Image.open(self._paths[number]) as image_file:
            image: Any = resize(image_file.convert("RGB"), self._settings)
        steps = (self._settings.clahe, self._settings.gamma, self._settings.median)
        if steps != (None, None, None):
            image = Image.fromarray(preprocess(np.asarray(image), self._settings))
        return self._transform(image), int(self._labels[number])


def resize(image: Image.Image, settings: Preprocess) -> Image.Image:
    """Resize a PIL image to the study's size by torchvision."""
    square = [settings.size, settings.size]
    if settings.fit == "cover":
        return v2.functional.center_crop(v2.functional.resize(image, [settings.size]), square)
    return v2.functional.resize(image, square)


def by_dataloader(
    data: Dataset[Sample], batch: int, workers: int = 0
) -> Callable[[np.ndarray], Iterator[Batch]]:
    """Return a function that yields the batches of given positions, by PyTorch's DataLoader."""
    order: list[int] = []  # read again in each pass; persistent workers see the changes, too
    loader = DataLoader(
        data, batch, sampler=order, num_workers=workers, persistent_workers=workers > 0
    )

    def batches(positions: np.ndarray) -> Iterator[Batch]:
        order[:] = positions.tolist()
        yield from ((images, labels) for images, labels in loader)

    return batches


def by_hand(data: Dataset[Sample], batch: int) -> Callable[[np.ndarray], Iterator[Batch]]:
    """Return a function that yields the batches of given positions, by a plain loop."""

    def batches(positions: np.ndarray) -> Iterator[Batch]:
        for start in range(0, len(positions), batch):
            images, labels = zip(
                *(data[int(number)] for number in positions[start : start + batch]), strict=True
            )
            yield torch.stack(images), torch.tensor(labels)

    return batches
