"""Synthetic clinical photographs in the Massive Skin Disease Balanced Dataset's layout, with its copies and traps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from medscale.data.demo import brush, common

ROOT = "balanced_dataset/balanced_dataset"  # doubled, as the archive unpacks
TABLE = "balanced_dataset/image_counts.csv"
SUFFIXES = (".jpg", ".jpg", ".jpg", ".jpeg", ".JPG", ".png")
# What is seen of each class, by means of: spots (log2 of their number), radius (log2 of per cent of the short side),
# redness, darkness, and how far they are rings, from 0 to 1.
CLASSES = {
    "Acne And Rosacea Photos": (4.0, 1.7, 0.80, 0.10, 0.0),
    "Ba  Cellulitis": (0.5, 4.2, 0.75, 0.10, 0.1),
    "Fu Ringworm": (1.0, 3.5, 0.60, 0.15, 0.9),
    "Melanoma Skin Cancer Nevi And Moles": (0.3, 3.2, 0.20, 0.75, 0.0),
    "Psoriasis Pictures Lichen Planus And Related Diseases": (2.5, 3.1, 0.65, -0.10, 0.3),
    "Vi Chickenpox": (4.0, 2.3, 0.45, 0.50, 0.4),
    "Warts Molluscum And Other Viral Infections": (2.5, 2.3, 0.15, -0.15, 0.0),
    "Heathy": (0.3, 1.0, 0.20, 0.35, 0.0),
}
SPREAD = (0.9, 0.45, 0.22, 0.22, 0.3)  # standard deviation of each, the same in all classes


class Options(common.Options):
    """Options of the synthetic clinical photographs."""

    classes: int = Field(6, ge=3, le=len(CLASSES))
    each: int = Field(84, ge=12, le=10_000, description="images a class, copies included")
    size: int = Field(
        300,
        ge=48,
        le=2000,
        description="short side at least, pixels; the long one at most 4/3 of it",
    )

    @property
    def images(self) -> int:
        """Originals and copies, and one broken file."""
        return self.classes * self.each + 1


class Original(NamedTuple):
    """One photograph to draw: its class (number), and the paths it and its copies are written to."""

    number: int
    label: int
    path: str
    copies: tuple[str, ...]


def generate(settings: Options, out: Path) -> None:
    """Draw the photographs and write them to ``out``, with the traps that real copies of the download have.

    Classes differ in number, size, colour and shape of their spots, and overlap in all of them, so that no classifier
    can be right on more than about 91 % of the images of six classes. The set is balanced as the real one is: classes
    have between a half and a sixth of their images as originals, the rest are copies ``aug_<number>_<original>``
    (flipped, turned, brighter or darker), so that a random split leaks. Traps: the doubled wrapper folder, two spaces
    in a class's name, several endings, a table beside the classes, and a truncated image. The same options give the
    same pixels with the same version of OpenCV, whatever the number of processes.

    Raises:
        MedscaleError: when ``out`` holds files that no generator has written.
    """
    originals = plan(settings)
    names = list(CLASSES)[: settings.classes]
    odd = {f"{ROOT}/{names[0]}/broken (1).jpg": common.TRUNCATED}
    common.clear(
        out, [TABLE, *odd, *(path for one in originals for path in (one.path, *one.copies))]
    )
    common.write_all(partial(_write, settings, out), originals, "drawing photographs")
    common.write_odd_files(out, odd, out / originals[0].path)
    table = "".join(f"{name},{settings.each}\n" for name in names)
    (out / TABLE).write_text(f"class,images\n{table}", encoding="utf-8")
    common.finish(out, "skin", settings, settings.images)


def plan(settings: Options) -> list[Original]:
    """Every original with the paths of its copies; the first original of all is a .jpg."""
    rng = np.random.default_rng(settings.seed)
    planned: list[Original] = []
    for label, name in enumerate(list(CLASSES)[: settings.classes]):
        share = 1 / 2 - 1 / 3 * label / max(1, settings.classes - 1)
        count = round(share * settings.each)
        copied = np.sort(rng.integers(0, count, settings.each - count))
        for one in range(count):
            stem = f"{name.split()[-1].lower()}-{label + 1:02d} ({one + 1})"
            suffix = SUFFIXES[0] if not planned else str(rng.choice(SUFFIXES))
            tags = rng.integers(0, 10_000, int((copied == one).sum()))
            copies = tuple(
                f"{ROOT}/{name}/aug_{k}{tag:04d}_{stem}.jpg" for k, tag in enumerate(tags.tolist())
            )
            planned.append(Original(len(planned), label, f"{ROOT}/{name}/{stem}{suffix}", copies))
    return planned


def appearance(rng: np.random.Generator, label: int) -> np.ndarray:
    """What is seen of a photograph of class ``label``: shape 5, drawn about the class's means (see ``CLASSES``)."""
    return rng.normal(list(CLASSES.values())[label], SPREAD)


def photograph(rng: np.random.Generator, seen: np.ndarray, size: int) -> np.ndarray:
    """Draw a photograph of skin with spots.

    Args:
        rng: decides everything else.
        seen: number, radius, redness, darkness and ringness of the spots, as in ``CLASSES``.
        size: the sides are between this and 4/3 of it, pixels.

    Returns:
        uint8 RGB, shape H,W,3.
    """
    height, width = rng.integers(size, size * 4 // 3 + 1, 2).tolist()
    image = brush.skin(rng, height, width, 0.6)
    spots = int(np.clip(np.rint(2 ** seen[0]), 1, 40))
    radius = min(height, width) * float(np.clip(2 ** seen[1], 1, 30)) / 100
    red, ring = float(np.clip(seen[2], 0, 1)), float(np.clip(seen[4], 0, 1))
    tint = np.array([1, 1 - 0.65 * red, 1 - 0.65 * red], np.float32) * np.float32(
        1 - 0.7 * np.clip(seen[3], -0.3, 1.2)
    )
    for _ in range(spots):
        centre = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
        own = radius * float(np.clip(rng.normal(1, 0.2), 0.5, 1.6))
        part, distance = brush.blob(rng, height, width, centre, own, 0.08)
        edge = brush.sigmoid((1 - distance) * 12) * (
            1 - ring * brush.sigmoid((0.65 - distance) * 14)
        )
        image[part] *= 1 - edge[..., None] * (1 - tint)
    image += rng.normal(0, 3, (height, width, 1)).astype(np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def copy(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """An augmented copy: perhaps flipped, turned by up to 25 degrees, brighter or darker by up to a fifth."""
    height, width = pixels.shape[:2]
    if rng.random() < 0.5:
        pixels = cv2.flip(pixels, 1)
    if rng.random() < 0.3:
        pixels = cv2.flip(pixels, 0)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-25, 25), 1)
    turned = cv2.warpAffine(
        pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return cv2.convertScaleAbs(turned, alpha=rng.uniform(0.8, 1.2))


def _write(settings: Options, out: Path, one: Original) -> None:
    """Draw one photograph, and write it and its copies."""
    rng = np.random.default_rng([settings.seed, one.number])
    pixels = photograph(rng, appearance(rng, one.label), settings.size)
    for path in (one.path, *one.copies):
        image = pixels if path == one.path else copy(rng, pixels)
        kind = ".png" if path.endswith(".png") else ".jpg"
        (out / path).write_bytes(cv2.imencode(kind, image[..., ::-1])[1].tobytes())
