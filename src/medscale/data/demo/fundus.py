"""Synthetic fundus photographs in SMDG-19's layout: a drawn stand-in for a download, traps included."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from medscale.data.demo import common
from medscale.data.demo.draw import photograph

GLAUCOMA = 0.39  # share of glaucoma, as in fundus-pytorch
CUP_TO_DISC = {0: (0.41, 0.09), 1: (0.69, 0.09)}  # mean and standard deviation by label
ODD_FILES = {
    "val/1/BEH-100001.png": common.TRUNCATED,
    "test/0/BEH-100002.png": common.EMPTY,
    "train/1/BEH-100003.png": common.TEXT,
    "train/0/Thumbs.db": common.THUMBS,
}
SETS = {
    0: ("BEH", "OIA-ODIR-TRAIN", "G1020", "REFUGE1-train"),
    1: ("BEH", "OIA-ODIR-TRAIN", "EyePACS-Glaucoma"),
}


class Options(common.Options):
    """Options of the synthetic fundus photographs."""

    unique: int = Field(
        480, ge=30, le=100_000, description="different images; each is written under two names"
    )
    size: int = Field(256, ge=32, le=4096, description="pixels a side; the real set has 512")

    @property
    def images(self) -> int:
        """Each image under two names, and two under both labels."""
        return 2 * (self.unique + 2)


class Photograph(NamedTuple):
    """One image to draw: what decides its pixels, and the paths it is written to."""

    number: int
    cup_to_disc: float
    paths: tuple[str, ...]


def generate(settings: Options, out: Path) -> None:
    """Draw the photographs and write them to ``out``, with the traps that real copies of the download have.

    The cup-to-disc ratios of the two classes overlap, so that no classifier can be right on more than about 94 % of the
    images. As in real copies, val and test together are train again under other names. Further files: two images under
    both labels, a truncated one, an empty one, a text file named .png, and a Thumbs.db. The same options give the same
    pixels with the same version of OpenCV, whatever the number of processes.

    Raises:
        MedscaleError: when ``out`` holds files that no generator has written.
    """
    photographs = plan(settings)
    common.clear(out, [*ODD_FILES, *(path for photo in photographs for path in photo.paths)])
    common.write_all(partial(_write, settings, out), photographs, "drawing photographs")
    common.write_odd_files(out, ODD_FILES, out / photographs[0].paths[0])
    common.finish(out, "smdg", settings, settings.images)


def plan(settings: Options) -> list[Photograph]:
    """Every photograph with its cup-to-disc ratio and its paths; the last two are those with both labels."""
    rng = np.random.default_rng(settings.seed)
    total = settings.unique + 2
    labels = np.zeros(total, np.int64)
    labels[: round(GLAUCOMA * settings.unique)] = 1
    labels[: settings.unique] = rng.permutation(labels[: settings.unique])
    photographs = []
    for number, label in enumerate(labels.tolist()):
        ratio = float(np.clip(rng.normal(*CUP_TO_DISC[label]), 0.1, 0.95))
        name = SETS[label][rng.integers(len(SETS[label]))]
        paths = [f"train/{label}/{name}-{number + 1}.png"]
        if number < settings.unique:
            split = "test" if number % 3 == 2 else "val"
            paths.append(f"{split}/{label}/{name}-{number + 1 + total}.png")
        else:
            paths.append(f"train/{1 - label}/{name}-{number + 1 + total}.png")
        photographs.append(Photograph(number, ratio, tuple(paths)))
    return photographs


def _write(settings: Options, out: Path, photo: Photograph) -> None:
    """Draw one photograph and write its bytes under each of its names."""
    rng = np.random.default_rng([settings.seed, photo.number])
    pixels = photograph(rng, photo.cup_to_disc, settings.size)
    data = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    for path in photo.paths:
        (out / path).write_bytes(data)
