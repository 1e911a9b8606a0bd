"""Synthetic clinical photographs in the layout of the Massive Skin Disease Balanced Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from medscale.data.demo import brush, common
from medscale.data.kinds.skin import class_name

ROOT = "balanced_dataset/balanced_dataset"  # nested in itself, as the archive unpacks
TABLE = "balanced_dataset/image_counts.csv"
SUFFIXES = (".jpg", ".jpg", ".jpg", ".jpeg", ".JPG", ".png")
# Means of the appearance by class: log2 of the number of spots, log2 of their radius in per cent of
# the short side, redness, darkness, and likeness to rings, from 0 to 1.
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
SPREAD = (0.9, 0.45, 0.22, 0.22, 0.3)  # standard deviations, the same for all classes


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

    @property
    def labels(self) -> list[str]:
        """The folders, sorted as the dataset kind does."""
        return sorted(class_name(name) for name in list(CLASSES)[: self.classes])


class Original(NamedTuple):
    """The plan of one photograph: its class (number), its path, and the paths of its copies."""

    number: int
    label: int
    path: str
    copies: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the photograph and of its copies."""
        return self.path, *self.copies


def generate(settings: Options, out: Path) -> None:
    """Write the dataset to ``out``, with the faults of real downloads.

    Classes differ in number, size, colour and shape of their spots, and overlap in all of these.
    No classifier can have an accuracy above about 91 % for six classes. The classes are balanced as
    in the real dataset: between a half and a sixth of a class's images are originals. The others
    are copies ``aug_<number>_<original>`` (flipped, turned, brighter or darker), so that a random
    split leaks. Further peculiarities are a nested wrapper folder, two spaces in a class's name,
    several file endings, a table next to the classes, and a truncated image.

    Raises:
        MedscaleError: when ``out`` holds files that no generator has written.
    """
    originals = plan(settings)
    names = list(CLASSES)[: settings.classes]
    table = "".join(f"{name},{settings.each}\n" for name in names)
    common.write_dataset(
        "skin",
        settings,
        out,
        originals,
        _write,
        faulty={f"{ROOT}/{names[0]}/broken (1).jpg": common.TRUNCATED},
        whole=originals[0].path,
        tables={TABLE: f"class,images\n{table}"},
    )


def plan(settings: Options) -> list[Original]:
    """Return the plan of every original; the first is a .jpg file."""
    rng = np.random.default_rng(settings.seed)
    originals: list[Original] = []
    for label, name in enumerate(list(CLASSES)[: settings.classes]):
        share = 1 / 2 - 1 / 3 * label / max(1, settings.classes - 1)
        count = round(share * settings.each)
        copy_counts = np.sort(rng.integers(0, count, settings.each - count))
        for index in range(count):
            stem = f"{name.split()[-1].lower()}-{label + 1:02d} ({index + 1})"
            suffix = str(rng.choice(SUFFIXES)) if originals else SUFFIXES[0]
            tags = rng.integers(0, 10_000, int((copy_counts == index).sum()))
            copies = tuple(
                f"{ROOT}/{name}/aug_{k}{tag:04d}_{stem}.jpg" for k, tag in enumerate(tags.tolist())
            )
            path = f"{ROOT}/{name}/{stem}{suffix}"
            originals.append(Original(len(originals), label, path, copies))
    return originals


def appearance(rng: np.random.Generator, label: int) -> np.ndarray:
    """Draw the appearance of a photograph of a class: shape 5, in the order of ``CLASSES``."""
    return rng.normal(list(CLASSES.values())[label], SPREAD)


def photograph(rng: np.random.Generator, looks: np.ndarray, size: int) -> np.ndarray:
    """Draw a photograph of skin with spots.

    Args:
        rng: generator of everything except the appearance.
        looks: appearance of the spots, as in ``CLASSES``.
        size: the sides are between this and 4/3 of it, pixels.

    Returns:
        uint8 RGB, shape H,W,3.
    """
    height, width = rng.integers(size, size * 4 // 3 + 1, 2).tolist()
    image = brush.skin(rng, height, width, 0.6)
    spots = int(np.clip(np.rint(2 ** looks[0]), 1, 40))
    radius = min(height, width) * float(np.clip(2 ** looks[1], 1, 30)) / 100
    red, ring = float(np.clip(looks[2], 0, 1)), float(np.clip(looks[4], 0, 1))
    brightness = np.float32(1 - 0.7 * np.clip(looks[3], -0.3, 1.2))
    tint = np.array([1, 1 - 0.65 * red, 1 - 0.65 * red], np.float32) * brightness
    for _ in range(spots):
        centre = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
        spot_radius = radius * float(np.clip(rng.normal(1, 0.2), 0.5, 1.6))
        part, distance = brush.blob(rng, height, width, centre, spot_radius, 0.08)
        hole = ring * brush.sigmoid((0.65 - distance) * 14)
        edge = brush.sigmoid((1 - distance) * 12) * (1 - hole)
        image[part] *= 1 - edge[..., None] * (1 - tint)
    image += rng.normal(0, 3, (height, width, 1)).astype(np.float32)
    return brush.to_uint8(image)


def augmented_copy(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Return a copy: flipped at random, turned by up to 25 degrees, brightness +-20 %."""
    height, width = pixels.shape[:2]
    if rng.random() < 0.5:
        pixels = cv2.flip(pixels, 1)
    if rng.random() < 0.3:
        pixels = cv2.flip(pixels, 0)
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-25, 25), 1)
    rotated = cv2.warpAffine(
        pixels, rotation, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return cv2.convertScaleAbs(rotated, alpha=rng.uniform(0.8, 1.2))


def _write(settings: Options, out: Path, plan: Original) -> None:
    """Draw one photograph, and write it and its copies."""
    rng = np.random.default_rng([settings.seed, plan.number])
    pixels = photograph(rng, appearance(rng, plan.label), settings.size)
    for path in plan.paths:
        image = pixels if path == plan.path else augmented_copy(rng, pixels)
        suffix = ".png" if path.endswith(".png") else ".jpg"
        (out / path).write_bytes(cv2.imencode(suffix, image[..., ::-1])[1].tobytes())
