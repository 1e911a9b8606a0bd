"""Batches straight from the mapped shards: each sample exactly once an epoch, in an order replicas cannot change."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from medscale.config import Augment
from medscale.data.augment import Augmenter, normalize
from medscale.data.random import permutation
from medscale.data.shards import Shards
from medscale.errors import MedscaleError

RESIDENT_SHARE = 0.5  # a split that needs less than this share of the free device memory is kept there


@dataclass(frozen=True)
class Batch:
    """A micro-batch of one replica.

    Attributes:
        images: float32, shape n,C,H,W, normalized, on the training device; n can be 0.
        labels: class codes, int64, shape n, on the training device.
        ids: row ids back into the index, int64, shape n, on the host.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Step:
    """What one replica needs for one optimizer step.

    Attributes:
        batches: the replica's micro-batches, one an accumulation step.
        size: images of the step over all replicas.
    """

    batches: list[Batch]
    size: int


class Loader:
    """One replica's share of a split, step by step.

    An epoch's N images are cut into ``ceil(N / global_batch)`` steps, each step among the replicas, and each share
    among ``accumulate`` micro-batches; at each cut the sizes differ by at most one. The order depends on (seed, epoch)
    alone, so the steps hold the same images whatever the number of replicas.

    Args:
        shards: the opened shard set.
        split: train, val or test.
        global_batch: largest number of images a step over all replicas.
        replicas: number of replicas that share each step.
        replica: which of them this is, from 0.
        accumulate: micro-batches a step.
        seed: decides the order and the augmentation.
        shuffle: another order each epoch; else the order of the shards.
        augment: random changes of the images; None for none.
        device: where batches are wanted and augmented.
        channels_last: memory format of the images.
        resident: keep the split in the device's memory; None does so on CUDA where half of what is free suffices.

    Raises:
        MedscaleError: when the split has no images, or the global batch is smaller than the number of replicas.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        *,
        global_batch: int,
        replicas: int,
        replica: int,
        accumulate: int = 1,
        seed: int = 0,
        shuffle: bool = False,
        augment: Augment | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        resident: bool | None = None,
    ) -> None:
        if global_batch < replicas:
            raise MedscaleError(
                f"a global batch of {global_batch} cannot be shared by {replicas} replicas; "
                "raise recipe.batch_size or ask for fewer devices"
            )
        self._positions = shards.positions(split)
        if not len(self._positions):
            raise MedscaleError(f"{shards.folder}: the split {split!r} has no images; change `split` in config.yaml")
        self._shards, self._global_batch, self._accumulate = shards, global_batch, accumulate
        self._replicas, self._replica, self._seed, self._shuffle = replicas, replica, seed, shuffle
        self._device, self._channels_last = torch.device(device), channels_last
        counts = np.bincount(shards.labels[self._positions], minlength=len(shards.classes))
        self._augmenter = Augmenter(augment, counts, seed) if augment is not None else None
        self._resident = resident

    @property
    def images(self) -> int:
        """Images in the split, over all replicas."""
        return len(self._positions)

    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return -(-self.images // self._global_batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """Steps of an epoch from step ``start`` on; the same as those of the whole epoch from there."""
        order = permutation(self._seed, epoch, self.images) if self._shuffle else np.arange(self.images)
        steps = np.array_split(order, self.steps())[start:]
        shares = [np.array_split(step, self._replicas)[self._replica] for step in steps]
        for step, share, images in zip(steps, shares, self._ahead(shares), strict=True):
            yield Step(self._batches(epoch, share, images), len(step))

    def _ahead(self, shares: list[np.ndarray]) -> Iterator[Tensor]:
        """Images (uint8, n,H,W,C) of each share on the device; for CUDA a thread reads the next ones meanwhile."""
        if self._device.type != "cuda" or self._on_device is not None:
            yield from map(self._read, shares)
            return
        if not shares:  # a restart at the very end of an epoch
            return
        with ThreadPoolExecutor(1, "loader") as thread:
            ahead = [thread.submit(self._read, share) for share in shares[:1]]
            for following in [*shares[1:], None]:
                images = ahead.pop().result()
                if following is not None:
                    ahead.append(thread.submit(self._read, following))
                yield images.to(self._device, non_blocking=True)

    def _read(self, share: np.ndarray) -> Tensor:
        """Images of a share: from device memory, or from the memory map into (for CUDA, pinned) host memory."""
        if self._on_device is not None:
            return self._on_device[torch.from_numpy(share).to(self._device)]
        images = torch.from_numpy(self._shards.gather(self._positions[share]))
        return images.pin_memory() if self._device.type == "cuda" else images

    @cached_property
    def _on_device(self) -> Tensor | None:
        """The whole split in device memory, where that is wanted or it fits."""
        size = self.images * int(np.prod(self._shards.shape))
        resident = self._resident
        if resident is None and self._device.type == "cuda":
            resident = size < RESIDENT_SHARE * torch.cuda.mem_get_info(self._device)[0]
        return torch.from_numpy(self._shards.gather(self._positions)).to(self._device) if resident else None

    def _batches(self, epoch: int, share: np.ndarray, images: Tensor) -> list[Batch]:
        """Augment and normalize a share, and cut it into micro-batches."""
        positions = self._positions[share]
        ids, labels = self._shards.ids[positions], self._shards.labels[positions]
        pixels = images.permute(0, 3, 1, 2)  # n,H,W,C in memory is channels_last
        form = torch.channels_last if self._channels_last else torch.contiguous_format
        if self._augmenter is not None:
            draws = torch.from_numpy(self._augmenter.draw(epoch, ids, labels)).to(self._device, non_blocking=True)
            pixels = self._augmenter.apply(pixels, draws)
        else:
            pixels = pixels.float().div_(255)
        cuts = zip(
            torch.tensor_split(normalize(pixels.contiguous(memory_format=form)), self._accumulate),
            torch.tensor_split(torch.from_numpy(labels).to(self._device), self._accumulate),
            torch.tensor_split(torch.from_numpy(ids), self._accumulate),
            strict=True,
        )
        return [Batch(*cut) for cut in cuts]
