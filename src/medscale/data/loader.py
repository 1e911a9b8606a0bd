"""Loading of batches from memory-mapped shards: each sample exactly once in an epoch.

The order of samples does not depend on the number of replicas.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from medscale.base.errors import MedscaleError
from medscale.data.ahead import ahead, upload
from medscale.data.augment import Augmenter
from medscale.data.limits import RESIDENT_SHARE
from medscale.data.random import permutation
from medscale.data.shards import Shards
from medscale.engine.plan import Augment

Inputs = Tensor | tuple[Tensor, Tensor]  # a network's arguments: images, or images and metadata


@dataclass(frozen=True)
class Batch:
    """A micro-batch of one replica."""

    images: Tensor  # float32, shape n,C,H,W, normalized, on the training device; n can be 0
    labels: Tensor  # class codes, int64, shape n, on the training device
    ids: Tensor  # ids of the index, int64, shape n, on the host
    # further features, float32, shape n,F, on the training device; None without
    metadata: Tensor | None = None

    @property
    def inputs(self) -> Inputs:
        """The network's arguments: the images, and the metadata if there are any."""
        return self.images if self.metadata is None else (self.images, self.metadata)

    @property
    def arguments(self) -> list[Tensor]:
        """The tensors of ``inputs``."""
        return [self.images, *([] if self.metadata is None else [self.metadata])]


@dataclass(frozen=True)
class Shape:
    """Numbers of images, which determine the shapes of all tensors of a step."""

    micros: tuple[int, ...]  # images of each micro-batch of the replica
    size: int  # images of the step over all replicas


@dataclass(frozen=True)
class Step:
    """One replica's part of an optimizer step."""

    batches: list[Batch]  # the replica's micro-batches, one per accumulation step
    size: int  # number of images of the step over all replicas

    @property
    def shape(self) -> Shape:
        """The numbers of images."""
        return Shape(tuple(len(batch.labels) for batch in self.batches), self.size)


class Loader:
    """Yields one replica's share of a split, step by step.

    The N images of an epoch are divided into ``ceil(N / global_batch)`` steps, each step among the
    replicas, and each share into ``accumulate`` micro-batches. In each division the sizes differ by
    at most one. The order depends only on (seed, epoch), so that the steps have the same images for
    any number of replicas.

    Args:
        shards: shard set of the images.
        split: train, val or test.
        global_batch: largest number of images per step over all replicas.
        replicas: number of replicas that share each step.
        replica: number of this replica, from 0.
        accumulate: micro-batches per step.
        seed: seed of order and augmentation.
        training: whether to shuffle and augment, differently in each epoch. Otherwise the images
            are in the order of the shards, without augmentation.
        augment: settings of the augmentation, and the visible part of an image.
        metadata: features of all samples of the shards, float32, shape N,F; None without.
        device: device on which batches are augmented and yielded.
        channels_last: memory format of the images.
        resident: whether to keep the split in the device's memory; None: on CUDA, if half of the
            free memory suffices.

    Raises:
        MedscaleError: when the split has no images, or the global batch is smaller than the number
            of replicas.
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
        training: bool = False,
        augment: Augment | None = None,
        metadata: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        resident: bool | None = None,
    ) -> None:
        if global_batch < replicas:
            raise MedscaleError(
                f"a global batch of {global_batch} cannot be shared by {replicas} replicas; "
                "raise recipe.batch_size, or choose a run with fewer devices"
            )
        self._positions = shards.positions(split)
        if not len(self._positions):
            raise MedscaleError(
                f"{shards.folder}: the split {split!r} has no images; change `split` in config.yaml"
            )
        self._shards, self._global_batch, self._accumulate = shards, global_batch, accumulate
        self._replicas, self._replica = replicas, replica
        self._seed, self._training = seed, training
        self._device, self._channels_last = torch.device(device), channels_last
        counts = np.bincount(shards.labels[self._positions], minlength=len(shards.classes))
        self._augmenter = Augmenter(augment or Augment(), counts, seed)
        self._metadata = None if metadata is None else torch.from_numpy(metadata)
        self._resident, self._waited_s = resident, 0.0

    @property
    def images(self) -> int:
        """Number of images in the split, over all replicas."""
        return len(self._positions)

    def steps(self) -> int:
        """Return the number of optimizer steps per epoch."""
        return -(-self.images // self._global_batch)

    @property
    def smallest_share(self) -> int:
        """Number of images of the smallest share of a step."""
        return self.images // self.steps() // self._replicas

    def shapes(self) -> dict[Shape, int]:
        """Return this replica's shapes of steps, at most two, with the number of steps of each.

        The larger steps come first, as in an epoch.
        """
        steps = self.steps()
        smaller, count_larger = divmod(self.images, steps)
        sizes = {smaller + 1: count_larger, smaller: steps - count_larger}
        return {self._shape(size): count for size, count in sizes.items() if count}

    def _share(self, step: np.ndarray) -> np.ndarray:
        """Return this replica's part of a step."""
        return np.array_split(step, self._replicas)[self._replica]

    def _shape(self, size: int) -> Shape:
        share = self._share(np.arange(size))
        micros = np.array_split(share, self._accumulate)
        return Shape(tuple(len(micro) for micro in micros), size)

    def blank(self, count: int) -> Batch:
        """Return a batch of ``count`` images of zeros, in the size and memory format of images."""
        height, width, channels = self._shards.shape
        pixels = torch.zeros(
            count, *self._augmenter.side((height, width)), channels, device=self._device
        ).permute(0, 3, 1, 2)
        features = None
        if self._metadata is not None:
            features = torch.zeros(count, self._metadata.shape[1], device=self._device)
        labels = torch.zeros(count, dtype=torch.int64, device=self._device)
        return Batch(self._in_memory_format(pixels), labels, torch.zeros(count).long(), features)

    def load(self) -> None:
        """Copy the split into the GPU's memory, if it is kept there, before the first batch."""
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                _ = self._on_device

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """Yield the steps of an epoch from step ``start`` on, which is above 0 after a restart.

        For a GPU, a thread prepares the next step on a stream of the loader at the same time.
        """
        has_steps = start < self.steps()  # false after a restart at the very end of an epoch
        return ahead(
            self._steps(epoch, start),
            self._stream if has_steps else None,
            lambda step: [t for batch in step.batches for t in (*batch.arguments, batch.labels)],
            self._add_wait,
        )

    def waited(self) -> float:
        """Return a clock, s, that runs while a step is waited for.

        On a CPU, which prepares the steps itself, it always runs. On a GPU it runs while the thread
        has not finished a step and the GPU has finished the step before.
        """
        return perf_counter() if self._device.type == "cpu" else self._waited_s

    def _add_wait(self, seconds: float) -> None:
        self._waited_s += seconds

    def _steps(self, epoch: int, start: int) -> Iterator[Step]:
        order = np.arange(self.images)
        if self._training:
            order = permutation(self._seed, epoch, self.images)
        steps = np.array_split(order, self.steps())[start:]
        # An epoch begins by waiting for its first batch, and dividing takes most of that time.
        shares = steps if self._replicas == 1 else [self._share(step) for step in steps]
        for step, share, images in zip(steps, shares, self._read_ahead(shares), strict=True):
            yield Step(self._batches(epoch, share, images), len(step))

    @cached_property
    def _stream(self) -> torch.cuda.Stream | None:
        # PyTorch hands out 32 streams of each priority in turn. With the priority of the training's
        # stream, this one could be the same stream, and nothing would be prepared meanwhile.
        return torch.cuda.Stream(self._device, priority=-1) if self._device.type == "cuda" else None

    def _read_ahead(self, shares: list[np.ndarray]) -> Iterator[Tensor]:
        """Yield the images (uint8, n,H,W,C) of each share on the device.

        For CUDA, a thread reads the next share at the same time.
        """
        if self._device.type != "cuda" or self._on_device is not None:
            yield from map(self._read_share, shares)
            return
        if not shares:  # a restart at the very end of an epoch
            return
        with ThreadPoolExecutor(1, "loader") as thread:
            reads = [thread.submit(self._read_share, share) for share in shares[:1]]
            for next_share in [*shares[1:], None]:
                images = reads.pop().result()
                if next_share is not None:
                    reads.append(thread.submit(self._read_share, next_share))
                yield images.to(self._device, non_blocking=True)

    def _read_share(self, share: np.ndarray) -> Tensor:
        """Return a share from device memory, or from the shards (in pinned memory for CUDA)."""
        if self._on_device is not None:
            return self._on_device[upload(torch.from_numpy(share), self._device)]
        images = torch.from_numpy(self._shards.gather(self._positions[share]))
        return images.pin_memory() if self._device.type == "cuda" else images

    @cached_property
    def _on_device(self) -> Tensor | None:
        """The whole split in device memory, if ``resident`` is set or the split fits."""
        size = self.images * int(np.prod(self._shards.shape))
        resident = self._resident
        if resident is None and self._device.type == "cuda":
            resident = size < RESIDENT_SHARE * torch.cuda.mem_get_info(self._device)[0]
        if not resident:
            return None
        return torch.from_numpy(self._shards.gather(self._positions)).to(self._device)

    def _batches(self, epoch: int, share: np.ndarray, images: Tensor) -> list[Batch]:
        """Augment and normalize a share, and divide it into micro-batches."""
        positions = self._positions[share]
        ids, labels = self._shards.ids[positions], self._shards.labels[positions]
        height, width, _ = self._shards.shape
        if self._training:
            changes = self._augmenter.draw(epoch, ids, labels, (height, width))
        else:
            changes = self._augmenter.neutral(len(ids), (height, width))
        pixels = self._augmenter.apply(images, changes.to(self._device), training=self._training)
        columns = [
            self._in_memory_format(pixels),
            upload(torch.from_numpy(labels), self._device),
            torch.from_numpy(ids),
        ]
        if self._metadata is not None:
            columns.append(upload(self._metadata[torch.from_numpy(positions)], self._device))
        parts = [torch.tensor_split(column, self._accumulate) for column in columns]
        return [Batch(*part) for part in zip(*parts, strict=True)]

    def _in_memory_format(self, pixels: Tensor) -> Tensor:
        form = torch.channels_last if self._channels_last else torch.contiguous_format
        return pixels.contiguous(memory_format=form)
