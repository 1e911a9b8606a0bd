"""The loader against PyTorch's own on the same images (`make bench-loader`): images a second on one core."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter

import cv2
import torch
import typer
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from bench.contest import Contestant, hold, show
from bench.inputs import make_shards, planned, training_loader
from medscale.data.shards import Shards
from medscale.errors import tell_user
from medscale.files import read_json, write_json

REPEATS = 4
PLAN = planned("serial_1cpu")
AUGMENT = PLAN.augment


class Samples(Dataset[tuple[torch.Tensor, int]]):
    """A shard set image by image, augmented one at a time."""

    def __init__(self, shards: Shards) -> None:
        self._shards, self._positions = shards, shards.positions("train")
        self._change = transforms()

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        position = self._positions[number : number + 1]
        image = torch.from_numpy(self._shards.gather(position))[0].permute(2, 0, 1)
        return self._change(image), int(self._shards.labels[position[0]])


def transforms() -> v2.Compose:
    """The study's augmentation and normalization as torchvision has them."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(AUGMENT.hflip),
            v2.RandomVerticalFlip(AUGMENT.vflip),
            v2.RandomRotation(AUGMENT.rotate, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(AUGMENT.brightness, AUGMENT.contrast),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )


def epochs(kind: str, folder: Path) -> Iterator[int]:
    """Images of each batch, over REPEATS epochs."""
    shards = Shards.open(folder / "shards")
    if kind == "medscale":
        loader = training_loader(PLAN, shards)
        for epoch in range(REPEATS):
            yield from (len(batch.labels) for step in loader.epoch(epoch) for batch in step.batches)
        return
    first = [v2.Resize((224, 224)), v2.PILToTensor()]
    data = Samples(shards) if kind == "dataset" else ImageFolder(folder / "files", v2.Compose([*first, transforms()]))
    for _ in range(REPEATS):
        yield from (len(labels) for _, labels in DataLoader(data, PLAN.global_batch, shuffle=True))


def measure(kind: str, folder: Path, out: Path) -> None:
    """Seconds of each epoch on one core, written to ``out``."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    seconds, images, start = [], 0, perf_counter()
    total = len(Shards.open(folder / "shards").positions("train"))
    for count in epochs(kind, folder):
        images += count
        if images == total:
            seconds.append(perf_counter() - start)
            images, start = 0, perf_counter()
    write_json(out / "seconds.json", {"epoch_seconds": seconds})


def make_files(folder: Path, shards: Path) -> None:
    """Write the training images as JPEG of 512 pixels, as a download has them."""
    opened = Shards.open(shards)
    images = opened.gather(opened.positions("train"))
    for number, image in enumerate(images):
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(cv2.GaussianBlur(image, (0, 0), 3), (512, 512)))


def main(rounds: int = 3, images: int = 256, kind: str = "", folder: Path = Path(), out: Path = Path()) -> None:
    """Read and augment the same images by each loader in turns, on one core, and print the ratios."""
    if kind:
        measure(kind, folder, out)
        return
    with tempfile.TemporaryDirectory(prefix="medscale-bench-") as temporary:
        base = Path(temporary)
        make_files(base / "files", make_shards(base / "shards", images, 224))
        names = {"medscale": "medscale", "dataset": "DataLoader on shards", "files": "DataLoader on JPEG files"}
        contestants = [Contestant(name, partial(_command, kind, base), _read) for kind, name in names.items()]
        table = hold(contestants, rounds, base / "out")
    show(table, "medscale", f"Seconds for {images} images of 224 px, augmented, on one core")


def _command(kind: str, folder: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "bench.loader", "--kind", kind, "--folder", str(folder), "--out", str(out)]


def _read(out: Path) -> list[float]:
    return list(read_json(out / "seconds.json")["epoch_seconds"])


if __name__ == "__main__":
    tell_user(typer.run)(main)
