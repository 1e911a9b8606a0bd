"""Other packages that load images, used as in their documentation, on the same shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medscale.data.augment import MEAN, STD
from medscale.data.shards import Shards
from medscale.engine.plan import Augment
from medscale.measure.loaders import Batch, Sample, transform

BATCH = 32
Epoch = Callable[[int], Iterator[Batch]]
Augmenter = Callable[[np.ndarray], Tensor]  # from an image (uint8, H,W,C) to float32, C,H,W


def torchvision_augmenter(augment: Augment) -> Augmenter:
    """Return the augmentation of a preprocessed image by torchvision."""
    change = transform(augment)
    return lambda image: change(torch.from_numpy(image).permute(2, 0, 1))


class PreprocessedImages(Dataset[Sample]):
    """The training images of a shard set, augmented one at a time."""

    def __init__(self, shards: Shards, augmenter: Augmenter) -> None:
        self._shards, self._positions = shards, shards.positions("train")
        self._augmenter = augmenter

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> Sample:
        position = self._positions[number : number + 1]
        image = self._augmenter(self._shards.gather(position)[0])
        return image, int(self._shards.labels[position[0]])


def train_images(folder: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Yield images (uint8, H,W,3) and class codes of the training split."""
    shards = Shards.open(folder / "shards")
    for position in shards.positions("train"):
        yield shards.gather(np.array([position]))[0], int(shards.labels[position])


def with_webdataset(folder: Path, augment: Augment) -> Epoch:
    """WebDataset: a tar file with one array an image, read in order and shuffled in memory."""
    import webdataset as wds

    tar = folder / "images.tar"
    if not tar.exists():
        with wds.TarWriter(str(tar)) as writer:
            for number, (image, label) in enumerate(train_images(folder)):
                writer.write({"__key__": f"{number:06d}", "npy": image, "cls": label})
    changed = torchvision_augmenter(augment)
    data = (
        wds.WebDataset(str(tar), shardshuffle=False).shuffle(1000).decode().to_tuple("npy", "cls")
    )
    loader = wds.WebLoader(data.map_tuple(changed, int).batched(BATCH), batch_size=None)
    return lambda epoch: ((images, torch.as_tensor(labels)) for images, labels in loader)


def with_datasets(folder: Path, augment: Augment) -> Epoch:
    """Hugging Face Datasets: a memory-mapped Arrow table in a DataLoader."""
    import datasets

    datasets.disable_progress_bars()
    place = folder / "arrow"
    if not place.exists():
        pairs = list(train_images(folder))
        columns = {
            "image": [image.tobytes() for image, _ in pairs],
            "label": [label for _, label in pairs],
        }
        datasets.Dataset.from_dict(columns).save_to_disk(str(place))
    shape, changed = Shards.open(folder / "shards").shape, torchvision_augmenter(augment)

    def change(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [
            changed(np.frombuffer(data, np.uint8).reshape(shape).copy()) for data in rows["image"]
        ]
        return {"image": images, "label": rows["label"]}

    data = datasets.load_from_disk(str(place)).with_transform(change)
    loader = DataLoader(data, BATCH, shuffle=True)
    return lambda epoch: ((batch["image"], batch["label"]) for batch in loader)


def with_grain(folder: Path, augment: Augment) -> Epoch:
    """Grain: an ArrayRecord file with random access, shuffled, mapped and batched."""
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)  # otherwise it warns of a missing profiler
    import grain
    from array_record.python.array_record_module import ArrayRecordWriter

    file = folder / "images.arrayrecord"
    if not file.exists():
        writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
        for image, label in train_images(folder):
            writer.write(bytes([label]) + image.tobytes())
        writer.close()
    shape, changed = Shards.open(folder / "shards").shape, torchvision_augmenter(augment)

    def change(record: bytes) -> Sample:
        return changed(np.frombuffer(record, np.uint8, offset=1).reshape(shape).copy()), record[0]

    def together(samples: Any) -> Batch:
        images, labels = zip(*samples, strict=True)
        return torch.stack(images), torch.tensor(labels)

    def batches(epoch: int) -> Iterator[Batch]:
        data = grain.MapDataset.source(grain.sources.ArrayRecordDataSource([str(file)])).shuffle(
            seed=epoch
        )
        mapped = data.map(change).batch(BATCH, batch_fn=together)
        yield from mapped.to_iter_dataset(grain.ReadOptions(num_threads=0))

    return batches


def with_torchdata(folder: Path, augment: Augment) -> Epoch:
    """torchdata's nodes over the shards."""
    from torch.utils.data import RandomSampler, default_collate
    from torchdata import nodes

    data = PreprocessedImages(Shards.open(folder / "shards"), torchvision_augmenter(augment))
    node = nodes.MapStyleWrapper(data, RandomSampler(data))
    loader = nodes.Loader(
        nodes.Mapper(nodes.Batcher(node, BATCH, drop_last=False), default_collate)
    )
    return lambda epoch: iter(loader)


def with_albumentations(folder: Path, augment: Augment) -> Epoch:
    """Albumentations: OpenCV augments single images of the shards, in a DataLoader."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise it looks for a newer version online
    import albumentations as album
    from albumentations.pytorch import ToTensorV2

    steps: list[Any] = (
        [album.Rotate(augment.rotate, p=1, border_mode=cv2.BORDER_REFLECT)]
        if augment.rotate
        else []
    )
    steps += [album.RandomCrop(augment.crop.size, augment.crop.size)] if augment.crop else []
    steps += [album.HorizontalFlip(p=augment.hflip)] if augment.hflip else []
    steps += [album.VerticalFlip(p=augment.vflip)] if augment.vflip else []
    if augment.brightness or augment.contrast:
        steps.append(album.RandomBrightnessContrast(augment.brightness, augment.contrast, p=1))
    change = album.Compose([*steps, album.Normalize(MEAN, STD), ToTensorV2()])
    shards = Shards.open(folder / "shards")
    data = PreprocessedImages(shards, lambda image: change(image=image)["image"])
    loader = DataLoader(data, BATCH, shuffle=True)
    return lambda epoch: ((images, labels) for images, labels in loader)


def with_kornia(folder: Path, augment: Augment) -> Epoch:
    """Kornia: whole batches of the shards are augmented as tensors."""
    import kornia.augmentation as kornia

    steps: list[Any] = [kornia.RandomRotation(augment.rotate, p=1.0)] if augment.rotate else []
    steps += [kornia.RandomCrop((augment.crop.size,) * 2)] if augment.crop else []
    steps += [kornia.RandomHorizontalFlip(p=augment.hflip)] if augment.hflip else []
    steps += [kornia.RandomVerticalFlip(p=augment.vflip)] if augment.vflip else []
    if augment.brightness:
        steps.append(
            kornia.RandomBrightness((1 - augment.brightness, 1 + augment.brightness), p=1.0)
        )
    if augment.contrast:
        steps.append(kornia.RandomContrast((1 - augment.contrast, 1 + augment.contrast), p=1.0))
    change = kornia.AugmentationSequential(
        *steps, kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)), data_keys=["input"]
    )
    shards = Shards.open(folder / "shards")
    positions = shards.positions("train")

    def batches(epoch: int) -> Iterator[Batch]:
        order = np.random.default_rng(epoch).permutation(positions)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            pixels = torch.from_numpy(shards.gather(part)).permute(0, 3, 1, 2).float() / 255
            yield change(pixels), torch.from_numpy(shards.labels[part])

    return batches


def with_dali(folder: Path, augment: Augment) -> Epoch:
    """NVIDIA DALI on the CPU: its operators augment whole batches of the shards, on one thread."""
    from nvidia.dali import fn, pipeline_def, types

    shards = Shards.open(folder / "shards")
    positions = shards.positions("train")
    steps = -(-len(positions) // BATCH)

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng(number // steps).permutation(positions)
        part = order[number % steps * BATCH : (number % steps + 1) * BATCH]
        return shards.gather(part), shards.labels[part][:, None]

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def changed() -> Any:
        images, labels = fn.external_source(
            read, num_outputs=2, layout=["HWC", ""], dtype=[types.UINT8, types.INT64]
        )
        return _dali_augmented(images, augment), labels

    pipeline = changed()
    pipeline.build()

    def batches(epoch: int) -> Iterator[Batch]:
        for _ in range(steps):
            images, labels = (
                torch.from_numpy(np.asarray(batch.as_array())) for batch in pipeline.run()
            )
            yield images, labels[:, 0]

    return batches


def _dali_augmented(images: Any, augment: Augment) -> Any:
    """Return DALI's node of augmented, cropped and normalized images (float32, C,H,W)."""
    from nvidia.dali import fn, types

    if augment.rotate:
        angle = fn.random.uniform(range=[-augment.rotate, augment.rotate])
        images = fn.rotate(images, angle=angle, keep_size=True, fill_value=0)
    if augment.brightness or augment.contrast:
        strengths = {"brightness": augment.brightness, "contrast": augment.contrast}
        factors = {n: fn.random.uniform(range=[1 - s, 1 + s]) for n, s in strengths.items()}
        images = fn.brightness_contrast(images, **factors)
    if augment.vflip:
        vertical = fn.random.coin_flip(probability=augment.vflip)
        images = fn.flip(images, horizontal=0, vertical=vertical)
    place = {}
    if augment.crop:
        place = {f"crop_pos_{axis}": fn.random.uniform(range=[0.0, 1.0]) for axis in "xy"}
    return fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        crop=[augment.crop.size] * 2 if augment.crop else None,
        mirror=fn.random.coin_flip(probability=augment.hflip),
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        **place,
    )


# by name in the table: the distribution, and the function that returns its loader
PACKAGES: dict[str, tuple[str, Callable[[Path, Augment], Epoch]]] = {
    "webdataset": ("webdataset", with_webdataset),
    "datasets": ("datasets", with_datasets),
    "grain": ("grain", with_grain),
    "torchdata": ("torchdata", with_torchdata),
    "albumentations": ("albumentations", with_albumentations),
    "kornia": ("kornia", with_kornia),
    "DALI": ("nvidia-dali-cuda130", with_dali),
}
