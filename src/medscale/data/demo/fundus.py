"""Synthetic fundus photographs in the layout of SMDG-19, edition fundus-pytorch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from medscale.data.demo import common
from medscale.data.demo.retina import photograph
from medscale.data.kinds.smdg import CLASSES

GLAUCOMA = 0.39  # share of glaucoma, as in fundus-pytorch
CUP_TO_DISC = {0: (0.41, 0.09), 1: (0.69, 0.09)}  # mean and standard deviation by label
FAULTY = {
    "val/1/BEH-100001.png": common.TRUNCATED,
    "test/0/BEH-100002.png": common.EMPTY,
    "train/1/BEH-100003.png": common.TEXT,
    "train/0/Thumbs.db": common.THUMBS,
}
SETS = {  # source sets by label; as in the real dataset, one of them betrays the label
    0: ("BEH", "OIA-ODIR-TRAIN", "G1020", "REFUGE1-train"),
    1: ("BEH", "OIA-ODIR-TRAIN", "EyePACS-Glaucoma"),
}


class Options(common.Options):
    """Options of the synthetic fundus photographs."""

    unique: int = Field(
        480, ge=30, le=100_000, description="different images; each is written under two names"
    )
    size: int = Field(256, ge=32, le=4096, description="pixels a side; the real dataset has 512")

    @property
    def images(self) -> int:
        """Each image under two names, and two images under both labels."""
        return 2 * (self.unique + 2)

    @property
    def labels(self) -> list[str]:
        """The classes of the dataset."""
        return list(CLASSES)


class Photograph(NamedTuple):
    """The plan of one photograph: its cup-to-disc ratio, and the paths that it is written to."""

    number: int
    cup_to_disc: float
    paths: tuple[str, ...]


def generate(settings: Options, out: Path) -> None:
    """Write the dataset to ``out``, with the faults of real downloads.

    The cup-to-disc ratios of the two classes overlap, so that no classifier can be right on more
    than about 94 % of the images. As in real downloads, validation and test images together are the
    training images under other names. Two images stand under both labels. Raises MedscaleError if
    ``out`` holds files that no generator has written.
    """
    photographs = plan(settings)
    whole = photographs[0].paths[0]
    common.write_dataset("smdg", settings, out, photographs, _write, faulty=FAULTY, whole=whole)


def plan(settings: Options) -> list[Photograph]:
    """Return the plan of every photograph; the last two stand under both labels."""
    rng = np.random.default_rng(settings.seed)
    total = settings.unique + 2
    labels = np.zeros(total, np.int64)
    labels[: round(GLAUCOMA * settings.unique)] = 1
    labels[: settings.unique] = rng.permutation(labels[: settings.unique])
    photographs = []
    for number, label in enumerate(labels.tolist()):
        ratio = float(np.clip(rng.normal(*CUP_TO_DISC[label]), 0.1, 0.95))
        name = SETS[label][rng.integers(len(SETS[label]))]
        if number < settings.unique:
            copy = f"{'test' if number % 3 == 2 else 'val'}/{label}"
        else:
            copy = f"train/{1 - label}"
        paths = (
            f"train/{label}/{name}-{number + 1}.png",
            f"{copy}/{name}-{number + 1 + total}.png",
        )
        photographs.append(Photograph(number, ratio, paths))
    return photographs


def _write(settings: Options, out: Path, plan: Photograph) -> None:
    """Draw one photograph and write its bytes under each of its names."""
    rng = np.random.default_rng([settings.seed, plan.number])
    pixels = photograph(rng, plan.cup_to_disc, settings.size)
    data = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    for path in plan.paths:
        (out / path).write_bytes(data)
