"""Synthetic dermoscopic images in the layout of ISIC 2017, with tables and superpixel images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from medscale.data.demo import brush, common
from medscale.data.kinds.isic2017 import CLASSES, COMPLETE, DUPLICATES

# Split of each part; the synthetic dataset keeps the real shares of splits and classes.
PARTS = {"Training": "train", "Validation": "val", "Test_v2": "test"}
FIRST_NUMBER = {"Training": 100_000, "Validation": 300_000, "Test_v2": 400_000}
# Means of the appearance by class: irregularity of the border, number of colours, pale dots,
# darkness; each with a standard deviation that is the same for all classes.
APPEARANCE = ((0.25, 0.30, 0.30, 0.40), (0.35, 0.35, 1.10, 0.45), (0.75, 0.90, 0.30, 0.65))
SPREAD = (0.24, 0.28, 0.35, 0.20)
AGE = ((47, 16), (58, 16), (57, 16))  # years, mean and standard deviation by class
UNKNOWN_AGE, UNKNOWN_SEX = 0.128, 0.128  # shares; 256 of the 2,000 real ages are unknown
LARGE = (3000, 2000)  # width and height of a few images
SUPERPIXELS = 24  # cells across an image


class Options(common.Options):
    """Options of the synthetic dermoscopic images."""

    unique: int = Field(500, ge=110, le=100_000, description="different images, over all splits")
    size: int = Field(224, ge=48, le=2000, description="height, pixels; the width is 4/3 of it")
    large: int = Field(
        3, ge=0, le=20, description="images of 3000x2000 pixels among those of training"
    )

    @property
    def images(self) -> int:
        """Photographs, without superpixel images."""
        return self.unique + len(DUPLICATES) + 1

    @property
    def labels(self) -> list[str]:
        """The classes of the dataset."""
        return list(CLASSES)


class Lesion(NamedTuple):
    """The plan of one image: its number (which seeds its pixels), and its entry in the tables."""

    number: int
    name: str
    part: str
    label: int
    age: str
    sex: str
    large: bool

    @property
    def paths(self) -> tuple[str, str]:
        """Paths of the photograph and of its superpixel image."""
        stem = f"{folder(self.part)}/{self.name}"
        return f"{stem}.jpg", f"{stem}_superpixels.png"


def generate(settings: Options, out: Path) -> None:
    """Write the dataset to ``out`` as ISIC 2017's archives unpack, with faults of real downloads.

    Classes differ in border, colours, pale dots and darkness of the lesion, and overlap in all of
    them, so that no classifier can be right on more than about 90 % of the images; the most
    frequent class alone gives 67 %. Age tells a little more: patients with a nevus are ten years
    younger on average. Ages and sexes are unknown for one image in eight, two test images are
    training images saved again (under the numbers of the real duplicates), one image is truncated,
    one listed image is missing, and the test metadata stand next to their folder. Raises
    MedscaleError if ``out`` holds files that no generator has written.
    """
    lesions = plan(settings)
    faulty = {
        f"{folder('Training')}/ISIC_1999998.jpg": common.TRUNCATED,
        f"{folder('Test_v2')}/Thumbs.db": common.THUMBS,
    }
    common.write_dataset(
        "isic2017",
        settings,
        out,
        lesions,
        _write,
        faulty=faulty,
        whole=lesions[-1].paths[0],
        tables=_tables(lesions),
    )


def folder(part: str) -> str:
    """Return the folder of a part's images.

    That of the validation images is nested in itself, as some programs unpack it.
    """
    name = f"ISIC-2017_{part}_Data"
    return f"{name}/{name}" if part == "Validation" else name


def plan(settings: Options) -> list[Lesion]:
    """Return the plan of every image; the last ones repeat training images in the test split."""
    rng = np.random.default_rng(settings.seed)
    total = sum(map(sum, COMPLETE.values()))
    lesions: list[Lesion] = []
    for part, split in PARTS.items():
        counts = [max(2, round(settings.unique * count / total)) for count in COMPLETE[split]]
        labels = rng.permutation(np.repeat(range(len(CLASSES)), counts)).tolist()
        for index, label in enumerate(labels):
            age = int(np.clip(np.rint(rng.normal(*AGE[label]) / 5) * 5, 5, 85))
            sex = ("female", "male")[rng.integers(2)]
            age_known, sex_known = rng.random(2) >= (UNKNOWN_AGE, UNKNOWN_SEX)
            lesions.append(
                Lesion(
                    number=len(lesions),
                    name=f"ISIC_{FIRST_NUMBER[part] + index:07d}",
                    part=part,
                    label=label,
                    age=str(age) if age_known else "unknown",
                    sex=sex if sex_known else "unknown",
                    large=part == "Training" and index < settings.large,
                )
            )
    for index, (first, second) in enumerate(DUPLICATES, start=settings.large):
        lesions[index] = lesions[index]._replace(name=first)
        lesions.append(lesions[index]._replace(name=second, part="Test_v2"))
    return lesions


def appearance(rng: np.random.Generator, label: int) -> np.ndarray:
    """Draw the appearance of a lesion of a class: shape 4, in the order of ``APPEARANCE``."""
    return rng.normal(APPEARANCE[label], SPREAD)


def photograph(rng: np.random.Generator, looks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw a dermoscopic image: one lesion in the middle of fair skin.

    Args:
        rng: determines everything but the appearance.
        looks: appearance of the lesion, as in ``APPEARANCE``.
        height: pixels.
        width: pixels.

    Returns:
        uint8 RGB, shape height,width,3.
    """
    border, colours, dots, darkness = np.clip(looks, 0, (1.2, 1.5, 1.5, 1)).tolist()
    image = brush.skin(rng, height, width, 0.35)
    centre = height * rng.normal(0.5, 0.05), width * rng.normal(0.5, 0.05)
    radius = height * float(np.clip(rng.normal(0.28, 0.05), 0.15, 0.4))
    part, distance = brush.blob(rng, height, width, centre, radius, 0.02 + 0.16 * border)
    inside = brush.sigmoid((1 - distance) * 14)[..., None]
    rows, columns = distance.shape
    network = np.float32(0.05) * brush.texture(rng, rows, columns, 24)
    brown = np.array([0.78, 0.62, 0.52], np.float32) * np.float32(1.25 - 0.75 * darkness)
    tint = brown * (1 + network[..., None])
    black, blue_grey, red = (0.30, 0.24, 0.26), (0.62, 0.70, 0.92), (0.95, 0.50, 0.48)
    for shade in (black, blue_grey, red):
        patches = brush.texture(rng, rows, columns, 4) - np.float32(2.2 - 1.6 * colours)
        paint = np.multiply(shade, rng.normal(1, 0.05)).astype(np.float32)
        tint += brush.sigmoid(patches * 6)[..., None] * (paint - tint) * np.float32(0.8)
    pale = brush.texture(rng, rows, columns, 18) - np.float32(2.4 - 1.1 * dots)
    tint += brush.sigmoid(pale * 8)[..., None] * (np.float32(1.05) - tint) * np.float32(0.7)
    image[part] *= 1 - inside * (1 - tint)
    image += 2 * brush.texture(rng, height, width, min(height, 200))[..., None]
    return brush.to_uint8(image)


def superpixels(height: int, width: int) -> np.ndarray:
    """Return a superpixel image: each cell's number in the bytes of its colour; uint8 RGB."""
    rows, columns = (np.arange(length) * SUPERPIXELS // width for length in (height, width))
    numbers = rows[:, None] * SUPERPIXELS + columns[None, :]
    return np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16 & 255], -1).astype(np.uint8)


def _write(settings: Options, out: Path, lesion: Lesion) -> None:
    """Draw and write one image and its superpixels; a duplicate is saved at a lower quality."""
    rng = np.random.default_rng([settings.seed, lesion.number])
    height, width = settings.size, settings.size * 4 // 3
    pixels = photograph(rng, appearance(rng, lesion.label), height, width)
    if lesion.large:
        pixels = cv2.resize(pixels, LARGE, interpolation=cv2.INTER_CUBIC)
    quality = 80 if lesion.name in (second for _, second in DUPLICATES) else 92
    files = (
        (pixels, [cv2.IMWRITE_JPEG_QUALITY, quality]),
        (superpixels(*pixels.shape[:2]), [cv2.IMWRITE_PNG_COMPRESSION, 1]),
    )
    for path, (image, options) in zip(lesion.paths, files, strict=True):
        data = cv2.imencode(path[-4:], image[..., ::-1], options)[1].tobytes()
        (out / path).write_bytes(data)


def _tables(lesions: list[Lesion]) -> dict[str, str]:
    """Return the text of the CSV files by path; training lists a damaged and a missing image."""
    tables = {}
    for part in PARTS:
        truth = "image_id,melanoma,seborrheic_keratosis\n"
        metadata = "image_id,age_approximate,sex\n"
        of_part = [lesion for lesion in lesions if lesion.part == part]
        for lesion in sorted(of_part, key=lambda lesion: lesion.name):
            label = CLASSES[lesion.label]
            answers = float(label == "melanoma"), float(label == "seborrheic_keratosis")
            truth += f"{lesion.name},{answers[0]},{answers[1]}\n"
            metadata += f"{lesion.name},{lesion.age},{lesion.sex}\n"
        if part == "Training":
            truth += "ISIC_1999998,0.0,0.0\nISIC_1999999,0.0,0.0\n"
            metadata += "ISIC_1999998,50,male\nISIC_1999999,unknown,unknown\n"
        parent = "" if part == "Test_v2" else f"{folder(part)}/"
        tables[f"ISIC-2017_{part}_Part3_GroundTruth.csv"] = truth
        tables[f"{parent}ISIC-2017_{part}_Data_metadata.csv"] = metadata
    return tables
