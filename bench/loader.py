"""Training-ready batches by the package and other loaders, on one core (`make bench-loader`)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
import typer

from bench.contest import judge, one_core_process, ratio, show, take_turns
from bench.inputs import make_shards, training_loader
from bench.packages import BATCH, PACKAGES, Epoch, PreprocessedImages, torchvision_augmenter
from medscale.base.errors import MedscaleError, tell_user
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards
from medscale.engine.plan import Augment, Crop
from medscale.measure.loaders import Batch, Photographs, by_dataloader

RECIPES = {
    "glaucoma": (224, Augment(rotate=15, hflip=0.5, vflip=0.5, brightness=0.2, contrast=0.2)),
    "skin": (256, Augment(hflip=0.5, crop=Crop(size=224))),
}
MEDSCALE, FILES, SHARDS = "medscale", "PIL + torchvision on JPEG files", "torchvision on shards"
RAW = 512  # pixels a side of the JPEG files, as in a download
FASTER = 10.0  # aim: times as fast as from files


def by_medscale(folder: Path, augment: Augment) -> Epoch:
    """Return the package's loader for one process; channels last, as the recipes train."""
    loader = training_loader(Shards.open(folder / "shards"), BATCH, augment)
    return lambda epoch: (
        (batch.images, batch.labels) for step in loader.epoch(epoch) for batch in step.batches
    )


def by_files(folder: Path, augment: Augment) -> Epoch:
    """Return a loader of raw files, decoded, resized and augmented in ``__getitem__``."""
    shards = Shards.open(folder / "shards")
    labels = shards.labels[shards.positions("train")]
    paths = [folder / "files" / f"{number}.jpg" for number in range(len(labels))]
    return _shuffled(
        by_dataloader(Photographs(paths, labels, Preprocess(size=shards.shape[0]), augment), BATCH),
        labels,
    )


def by_torchvision(folder: Path, augment: Augment) -> Epoch:
    """Return a loader of the shards' images, augmented in ``__getitem__``."""
    shards = Shards.open(folder / "shards")
    images = PreprocessedImages(shards, torchvision_augmenter(augment))
    return _shuffled(by_dataloader(images, BATCH), shards.positions("train"))


def _shuffled(batches: Callable[[np.ndarray], Iterator[Batch]], images: np.ndarray) -> Epoch:
    return lambda epoch: batches(np.random.default_rng(epoch).permutation(len(images)))


KINDS: dict[str, Callable[[Path, Augment], Epoch]] = {
    MEDSCALE: by_medscale,
    FILES: by_files,
    SHARDS: by_torchvision,
    **{name: make for name, (_, make) in PACKAGES.items()},
}


def label(kind: str) -> str:
    """Return a loader's name in the table, with its package's version."""
    return f"{kind} {version(PACKAGES[kind][0])}" if kind in PACKAGES else kind


@cache
def opened(kind: str, recipe: str, folder: Path) -> Epoch:
    """Return a loader that stays open over rounds, after writing its storage if it needs one."""
    torch.set_num_threads(1)
    return KINDS[kind](folder / recipe, RECIPES[recipe][1])


def seconds(kind: str, recipe: str, folder: Path, epoch: int) -> float:
    """Return the seconds until an epoch is delivered; runs in a separate process.

    Raises:
        MedscaleError: when the batches are not what a network is trained on.
    """
    batches, images, start = opened(kind, recipe, folder), 0, perf_counter()
    for pixels, _ in batches(epoch):
        images += len(pixels)
        if pixels.shape[1:] != (3, 224, 224) or pixels.dtype != torch.float32:
            raise MedscaleError(f"{kind} delivered {pixels.dtype} of shape {tuple(pixels.shape)}")
    duration_s = perf_counter() - start
    expected = len(Shards.open(folder / recipe / "shards").positions("train"))
    if images != expected:
        raise MedscaleError(f"{kind} delivered {images} images instead of {expected}")
    return duration_s


def make_inputs(folder: Path, images: int) -> None:
    """Write each recipe's shards, and the same images as JPEG files of ``RAW`` pixels."""
    for recipe, (size, _) in RECIPES.items():
        shards = Shards.open(make_shards(folder / recipe / "shards", images, size))
        (folder / recipe / "files").mkdir()
        for number, image in enumerate(shards.gather(shards.positions("train"))):
            smooth = cv2.resize(cv2.GaussianBlur(image, (0, 0), 3), (RAW, RAW))
            cv2.imwrite(str(folder / recipe / "files" / f"{number}.jpg"), smooth)


def contest(folder: Path, rounds: int, images: int) -> None:
    """Compare the loaders on the same images, each in a separate process, and print ratios."""
    make_inputs(folder, images)
    with ExitStack() as stack:
        own = {kind: stack.enter_context(one_core_process()) for kind in KINDS}
        for recipe, (size, augment) in RECIPES.items():
            ways = {label(kind): partial(_once, own[kind], kind, recipe, folder) for kind in KINDS}
            for way in ways.values():  # imports, storage, first touch of memory
                way(rounds)
            table = take_turns(ways, rounds, quiet=True)
            changes = ", ".join(
                f"{key} {value}" for key, value in augment.model_dump(exclude_defaults=True).items()
            )
            show(
                table,
                MEDSCALE,
                f"{recipe}: {images} images of {size} px; {changes}; one core",
                images,
            )
            advantage = ratio(table, FILES, MEDSCALE)
            judge(
                f"{FILES} / {MEDSCALE} (aim: at least {FASTER})", advantage, advantage[0] >= FASTER
            )


def _once(process: ProcessPoolExecutor, kind: str, recipe: str, folder: Path, number: int) -> float:
    return process.submit(seconds, kind, recipe, folder, number).result()


def main(rounds: int = 5, images: int = 256) -> None:
    """Compare the loaders on each recipe's images, on one core, and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="medscale-bench-") as temporary:
        contest(Path(temporary), rounds, images)


if __name__ == "__main__":
    tell_user(typer.run)(main)
