"""Near-duplicate search on real images: copies that it finds, different images that it merges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import typer

from bench.contest import print_table
from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError, tell_user
from medscale.base.files import write_csv
from medscale.data.images import read_rgb
from medscale.data.lookalike import RELIEF, analysed, components, pairs
from medscale.data.signature import signature


def encoded(image: np.ndarray, quality: int = 90) -> np.ndarray:
    """Return an image after JPEG compression."""
    data = cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def cropped(image: np.ndarray, share: float) -> np.ndarray:
    """Return the middle of an image, without ``share`` of each side's length."""
    top, left = (round(side * share / 2) for side in image.shape[:2])
    return image[top : image.shape[0] - top, left : image.shape[1] - left]


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG, quality 50": lambda image: encoded(image, 50),
    "half the size": lambda image: cv2.resize(
        image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
    ),
    "20 % brighter": lambda image: encoded(cv2.convertScaleAbs(image, alpha=1.2)),
    "20 % darker": lambda image: encoded(cv2.convertScaleAbs(image, alpha=0.8)),
    "mirrored": lambda image: encoded(image[:, ::-1]),
    "upside down": lambda image: encoded(image[::-1]),
    "turned by 90": lambda image: encoded(np.rot90(image)),
    "turned by 180": lambda image: encoded(np.rot90(image, 2)),
    "turned by 270": lambda image: encoded(np.rot90(image, 3)),
}
CROPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cropped by 2 %": lambda image: encoded(cropped(image, 0.02)),
    "cropped by 5 %": lambda image: encoded(cropped(image, 0.05)),
}


def merged(links: np.ndarray, count: int) -> set[tuple[int, int]]:
    """Return the pairs of different originals; positions n and n + count are one original."""
    both = np.sort(links % count, axis=1)
    return {(int(a), int(b)) for a, b in both if a != b}


def measure(name: str, images: list[np.ndarray]) -> pd.DataFrame:
    """Return one row for each kind of copy.

    ``recall`` is the share of the originals that are joined with their copy, over the originals
    with enough structure (``comparable``): blank images and stripes are never joined. ``merged`` is
    the number of joined pairs of different originals, without those that are joined among the
    originals alone (``merged_originals``).
    """
    originals = [signature(image) for image in images]
    comparable = analysed(originals)[0] >= RELIEF
    merged_originals = merged(pairs(originals), len(images))
    rows = []
    for kind, copied in {**COPIES, **CROPS}.items():
        both = originals + [signature(copied(image)) for image in images]
        links = pairs(both)
        part = components(len(both), links)
        joined = (part[: len(images)] == part[len(images) :])[comparable]
        merged_copies = len(merged(links, len(images)) - merged_originals)
        rows.append(
            {
                "data": name,
                "copy": kind,
                "recall": round(float(joined.mean()), 4) if len(joined) else None,
                "merged": merged_copies,
                "images": len(images),
                "comparable": int(comparable.sum()),
                "merged_originals": len(merged_originals),
            }
        )
    return pd.DataFrame(rows)


def main(
    folders: list[Path] = typer.Argument(help="folders of images, <class>/*.jpg or *.png"),
    to: Path = typer.Option(ROOT / "docs" / "lookalike.csv"),
) -> None:
    """Copy each image in each way, search copies and originals together, and write the result."""
    tables = []
    for folder in folders:
        paths = sorted(
            path for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        )
        if not paths:
            raise MedscaleError(f"{folder} holds no <class>/*.jpg or *.png")
        tables.append(measure(folder.name, [read_rgb(path) for path in paths]))
    table = pd.concat(tables, ignore_index=True)
    write_csv(to, table)
    print_table(table)


if __name__ == "__main__":
    tell_user(typer.run)(main)
