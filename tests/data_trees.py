"""Small image files and raw folders for the tests of medscale.data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth RGB picture of (width, height), different for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, seed: int) -> Path:
    """Write the picture of ``seed`` as the kind that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed), "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"))
    return path


def class_tree(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """``<class>/<number>.png`` with different pictures everywhere."""
    for label, count in counts.items():
        for number in range(count):
            write(root / label / f"{number}.png", seed := seed + 1)
    return root


def fundus_pytorch(root: Path, each: int = 4, seed: int = 0) -> Path:
    """``train|val|test/0|1/BEH-<n>.png`` with different pictures everywhere."""
    for split in ("train", "val", "test"):
        for label in ("0", "1"):
            for _ in range(each):
                write(root / split / label / f"BEH-{(seed := seed + 1)}.png", seed)
    return root
