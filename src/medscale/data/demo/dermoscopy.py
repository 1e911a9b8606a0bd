"""Synthetic dermoscopic images in ISIC 2017's layout: tables, superpixels, large photographs and traps included."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from medscale.base.files import write_text
from medscale.data.demo import brush, common

CLASSES = ("nevus", "seborrheic_keratosis", "melanoma")
# Images of the real set by split and class, of which the synthetic one keeps the shares.
REAL = {"Training": (1372, 254, 374), "Validation": (78, 42, 30), "Test_v2": (393, 90, 117)}
FIRST = {
    "Training": 100_000,
    "Validation": 300_000,
    "Test_v2": 400_000,
}  # number of the first image
PAIRS = (
    ("ISIC_0012271", "ISIC_0012152"),
    ("ISIC_0012175", "ISIC_0012216"),
)  # the same image in training and test
# Means by class of: unevenness of the border, variegation (colours in the lesion), pale dots, darkness.
SEEN = ((0.25, 0.30, 0.30, 0.40), (0.35, 0.35, 1.10, 0.45), (0.75, 0.90, 0.30, 0.65))
SPREAD = (0.24, 0.28, 0.35, 0.20)  # standard deviation of each, the same in all classes
AGE = ((47, 16), (58, 16), (57, 16))  # years, mean and standard deviation by class
UNKNOWN_AGE, UNKNOWN_SEX = 0.128, 0.128  # shares; 256 of the 2,000 real ages are unknown
LARGE = (3000, 2000)  # width and height of a few
SUPERPIXELS = 24  # cells across


class Options(common.Options):
    """Options of the synthetic dermoscopic images."""

    unique: int = Field(500, ge=110, le=100_000, description="different images, over all splits")
    size: int = Field(224, ge=48, le=2000, description="height, pixels; the width is 4/3 of it")
    large: int = Field(
        3, ge=0, le=20, description="images of 3000x2000 pixels among those of training"
    )

    @property
    def images(self) -> int:
        """Photographs, without the superpixels beside them."""
        return self.unique + len(PAIRS) + 1


class Lesion(NamedTuple):
    """One image to draw: what decides its pixels, its entry in the tables, and where it is written."""

    number: int
    name: str
    part: str
    label: int
    age: str
    sex: str
    large: bool


def generate(settings: Options, out: Path) -> None:
    """Draw the images and write them to ``out`` as ISIC 2017's archives unpack.

    Classes differ in border, colours, pale dots and darkness of the lesion, and overlap in all of them, so that no
    classifier can be right on more than about 90 % of the images; the most frequent class alone gives 67 %. Age tells a
    little more: patients with a nevus are ten years younger on average. Traps: the validation images are nested twice,
    the test set's metadata stand beside its folder, ages and sexes are unknown for one in eight, two test images are
    training images saved again (under the numbers of the real duplicates), one image is truncated, one listed image is
    missing, and a Thumbs.db. The same options give the same pixels with the same version of OpenCV, whatever the number
    of processes.

    Raises:
        MedscaleError: when ``out`` holds files that no generator has written.
    """
    lesions = plan(settings)
    tables = _tables(lesions)
    odd = {
        f"{folder('Training')}/ISIC_1999998.jpg": common.TRUNCATED,
        f"{folder('Test_v2')}/Thumbs.db": common.THUMBS,
    }
    images = [path(one, ending) for one in lesions for ending in (".jpg", "_superpixels.png")]
    common.clear(out, [*tables, *odd, *images])
    common.write_all(partial(_write, settings, out), lesions, "drawing dermoscopic images")
    common.write_odd_files(out, odd, out / path(lesions[-1], ".jpg"))
    for name, text in tables.items():
        write_text(out / name, text)
    common.finish(out, "isic2017", settings, settings.images)


def folder(part: str) -> str:
    """Folder of a part's images; that of the validation images is nested in itself, as some programs unpack it."""
    name = f"ISIC-2017_{part}_Data"
    return f"{name}/{name}" if part == "Validation" else name


def path(one: Lesion, ending: str) -> str:
    """Path of an image's photograph (.jpg) or of its superpixels (_superpixels.png)."""
    return f"{folder(one.part)}/{one.name}{ending}"


def plan(settings: Options) -> list[Lesion]:
    """Every image with its entry in the tables; the first of the test images repeat training images."""
    rng = np.random.default_rng(settings.seed)
    total = sum(map(sum, REAL.values()))
    lesions: list[Lesion] = []
    for part, real in REAL.items():
        counts = [max(2, round(settings.unique * count / total)) for count in real]
        for place, label in enumerate(
            rng.permutation(np.repeat(range(len(CLASSES)), counts)).tolist()
        ):
            age = int(np.clip(np.rint(rng.normal(*AGE[label]) / 5) * 5, 5, 85))
            sex = ("female", "male")[rng.integers(2)]
            known = rng.random(2) >= (UNKNOWN_AGE, UNKNOWN_SEX)
            large = part == "Training" and place < settings.large
            name = f"ISIC_{FIRST[part] + place:07d}"
            shown = str(age) if known[0] else "unknown", sex if known[1] else "unknown"
            lesions.append(Lesion(len(lesions), name, part, label, *shown, large))
    for place, (first, second) in enumerate(PAIRS, start=settings.large):
        lesions[place] = lesions[place]._replace(name=first)
        lesions.append(lesions[place]._replace(name=second, part="Test_v2"))
    return lesions


def appearance(rng: np.random.Generator, label: int) -> np.ndarray:
    """What is seen of a lesion of class ``label``: shape 4, drawn about the class's means (see ``SEEN``)."""
    return rng.normal(SEEN[label], SPREAD)


def photograph(rng: np.random.Generator, seen: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw a dermoscopic image: one lesion in the middle of fair skin.

    Args:
        rng: decides everything else.
        seen: border, variegation, dots and darkness, as in ``SEEN``.
        height: pixels.
        width: pixels.

    Returns:
        uint8 RGB, shape height,width,3.
    """
    border, colours, dots, darkness = np.clip(seen, 0, (1.2, 1.5, 1.5, 1)).tolist()
    image = brush.skin(rng, height, width, 0.35)
    centre = height * rng.normal(0.5, 0.05), width * rng.normal(0.5, 0.05)
    radius = height * float(np.clip(rng.normal(0.28, 0.05), 0.15, 0.4))
    part, distance = brush.blob(rng, height, width, centre, radius, 0.02 + 0.16 * border)
    inside = brush.sigmoid((1 - distance) * 14)[..., None]
    down, across = distance.shape
    network = np.float32(0.05) * brush.texture(rng, down, across, 24)
    brown = np.array([0.78, 0.62, 0.52], np.float32) * np.float32(1.25 - 0.75 * darkness)
    tint = brown * (1 + network[..., None])
    for shade in (
        (0.30, 0.24, 0.26),
        (0.62, 0.70, 0.92),
        (0.95, 0.50, 0.48),
    ):  # black, blue-grey, red
        patch = brush.sigmoid(
            (brush.texture(rng, down, across, 4) - np.float32(2.2 - 1.6 * colours)) * 6
        )[..., None]
        tint += (
            patch
            * (np.multiply(shade, rng.normal(1, 0.05)).astype(np.float32) - tint)
            * np.float32(0.8)
        )
    pale = brush.sigmoid((brush.texture(rng, down, across, 18) - np.float32(2.4 - 1.1 * dots)) * 8)[
        ..., None
    ]
    tint += pale * (np.float32(1.05) - tint) * np.float32(0.7)
    image[part] *= 1 - inside * (1 - tint)
    image += 2 * brush.texture(rng, height, width, min(height, 200))[..., None]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def superpixels(height: int, width: int) -> np.ndarray:
    """A superpixel image as the archives hold: each cell's number in the bytes of its colour; uint8, height,width,3."""
    rows, columns = (np.arange(length) * SUPERPIXELS // width for length in (height, width))
    numbers = rows[:, None] * SUPERPIXELS + columns[None, :]
    return np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16 & 255], -1).astype(np.uint8)


def _write(settings: Options, out: Path, one: Lesion) -> None:
    """Draw one image and write it with its superpixels; a duplicate is the same drawing, saved more coarsely."""
    rng = np.random.default_rng([settings.seed, one.number])
    height, width = settings.size, settings.size * 4 // 3
    pixels = photograph(rng, appearance(rng, one.label), height, width)
    if one.large:
        pixels = cv2.resize(pixels, LARGE, interpolation=cv2.INTER_CUBIC)
    quality = 80 if one.name in (second for _, second in PAIRS) else 92
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    (out / path(one, ".jpg")).write_bytes(data.tobytes())
    cells = cv2.imencode(
        ".png", superpixels(*pixels.shape[:2])[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )[1]
    (out / path(one, "_superpixels.png")).write_bytes(cells.tobytes())


def _tables(lesions: list[Lesion]) -> dict[str, str]:
    """The CSV files' text by path: ground truth, age and sex; training lists a truncated and a missing image too."""
    tables = {}
    for part in REAL:
        truth, metadata = (
            "image_id,melanoma,seborrheic_keratosis\n",
            "image_id,age_approximate,sex\n",
        )
        for one in sorted((one for one in lesions if one.part == part), key=lambda one: one.name):
            truth += f"{one.name},{float(one.label == 2)},{float(one.label == 1)}\n"
            metadata += f"{one.name},{one.age},{one.sex}\n"
        if part == "Training":
            truth += "ISIC_1999998,0.0,0.0\nISIC_1999999,0.0,0.0\n"
            metadata += "ISIC_1999998,50,male\nISIC_1999999,unknown,unknown\n"
        where = "" if part == "Test_v2" else f"{folder(part)}/"
        tables[f"ISIC-2017_{part}_Part3_GroundTruth.csv"] = truth
        tables[f"{where}ISIC-2017_{part}_Data_metadata.csv"] = metadata
    return tables
