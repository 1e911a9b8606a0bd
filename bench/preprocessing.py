"""Preprocessing of single images against plain loops with OpenCV and PIL."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.contest import one_core_process, ratio, take_turns
from medscale.data.demo.retina import photograph
from medscale.data.prepare import read_image
from medscale.data.settings import Clahe, Preprocess

RECIPES = {
    "glaucoma": Preprocess(size=224, clahe=Clahe(clip_limit=2.0, tiles=8), gamma=1.2, median=3),
    "plain resize": Preprocess(size=224),
}
FILES = {
    "PNG 512": ("png", 512),
    "JPEG 512": ("jpg", 512),
    "JPEG 1024": ("jpg", 1024),
    "JPEG 2048": ("jpg", 2048),
}
MEDSCALE, SAME_STEPS = "medscale", "OpenCV loop, same steps"
LINEAR, PIL = "OpenCV loop, linear resize", "PIL loop"
QUALITY = 92  # of the JPEG files
FASTER = 2.0  # aim: times as fast as the same steps in a plain loop

File = tuple[str, str, int, int]


def make_files(folder: Path, images: int, kinds: Iterable[str] = FILES) -> dict[str, list[File]]:
    """Write generated images of kinds in ``FILES``; return index rows.

    A row has path, SHA-256, width and height.
    """
    rows: dict[str, list[File]] = {}
    for name in kinds:
        suffix, size = FILES[name]
        for number in range(images):
            file = folder / f"{size}-{number}.{suffix}"
            drawn = photograph(np.random.default_rng(number), 0.3 + 0.4 * number / images, size)
            Image.fromarray(drawn).save(file, quality=QUALITY)
            data = file.read_bytes()
            rows.setdefault(name, []).append(
                (file.name, hashlib.sha256(data).hexdigest(), size, size)
            )
    return rows


def by_medscale(folder: str, file: File, settings: Preprocess) -> np.ndarray:
    """Read, check, decode and preprocess one image, as a Dask worker does."""
    return read_image(folder, file, settings)


def by_opencv(
    folder: str, file: File, settings: Preprocess, interpolation: int = cv2.INTER_AREA
) -> np.ndarray:
    """Decode the whole image by OpenCV, then do the same steps."""
    image = cv2.imread(os.path.join(folder, file[0]), cv2.IMREAD_COLOR)
    assert image is not None
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return enhanced(
        cv2.resize(image, (settings.size, settings.size), interpolation=interpolation), settings
    )


def by_pil(folder: str, file: File, settings: Preprocess) -> np.ndarray:
    """Decode and resize by PIL, then do the other steps by OpenCV."""
    with Image.open(os.path.join(folder, file[0])) as opened:
        image = opened.convert("RGB").resize((settings.size, settings.size))
    return enhanced(np.asarray(image), settings)


def enhanced(image: np.ndarray, settings: Preprocess) -> np.ndarray:
    """Apply CLAHE, gamma and median as tutorials do, with a new set-up for each image."""
    if settings.clahe is not None:
        light, a, b = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
        equalize = cv2.createCLAHE(
            clipLimit=settings.clahe.clip_limit, tileGridSize=(settings.clahe.tiles,) * 2
        )
        image = cv2.cvtColor(cv2.merge((equalize.apply(light), a, b)), cv2.COLOR_LAB2RGB)
    if settings.gamma is not None:
        table = np.array(
            [round(255 * (i / 255) ** (1 / settings.gamma)) for i in range(256)]
        ).astype("uint8")
        image = cv2.LUT(image, table)
    return image if settings.median is None else cv2.medianBlur(image, settings.median)


WAYS: dict[str, Callable[[str, File, Preprocess], np.ndarray]] = {
    MEDSCALE: by_medscale,
    SAME_STEPS: by_opencv,
    LINEAR: partial(by_opencv, interpolation=cv2.INTER_LINEAR),
    PIL: by_pil,
}


def seconds(way: str, folder: str, files: list[File], recipe: str) -> float:
    """Return the seconds of all files by one way; runs in a separate process."""
    start = perf_counter()
    for file in files:
        WAYS[way](folder, file, RECIPES[recipe])
    return perf_counter() - start


def differences(folder: str, files: list[File], recipe: str) -> tuple[float, int]:
    """Return mean and largest difference in grey levels from the plain loop with OpenCV."""
    steps = RECIPES[recipe]
    pairs = [(by_medscale(folder, file, steps), by_opencv(folder, file, steps)) for file in files]
    levels = np.abs(np.stack([first.astype(int) - second for first, second in pairs]))
    return float(levels.mean()), int(levels.max())


def contest(folder: Path, rounds: int, images: int) -> None:
    """Compare the ways for each kind of file and recipe, and print one table."""
    files = make_files(folder, images)
    heads = [
        "ms an image",
        *(f"{way} / {MEDSCALE}" for way in (SAME_STEPS, LINEAR, PIL)),
        "difference: mean, largest",
        "",
    ]
    title = f"Preprocessing to 224 px, one core, {images} images, medians over {rounds} rounds"
    output = Table("file", "recipe", *heads, title=title, box=None, title_justify="left")
    with one_core_process() as process:
        for kind, inputs in files.items():
            for recipe in RECIPES:
                process.submit(
                    differences, str(folder), inputs, recipe
                ).result()  # warms files and code up
                ways = {
                    way: partial(_once, process, way, str(folder), inputs, recipe) for way in WAYS
                }
                table = take_turns(ways, rounds, quiet=True)
                mean, largest = process.submit(differences, str(folder), inputs, recipe).result()
                output.add_row(
                    kind, recipe, *_cells(table, images), *_verdict(table, mean, largest)
                )
    Console(width=170).print(output)


def _once(
    process: ProcessPoolExecutor, way: str, folder: str, files: list[File], recipe: str, number: int
) -> float:
    return float(process.submit(seconds, way, folder, files, recipe).result())


def _cells(table: pd.DataFrame, images: int) -> list[str]:
    own = table.loc[table["name"] == MEDSCALE, "seconds"].median() * 1000 / images
    ratios = (ratio(table, way, MEDSCALE) for way in (SAME_STEPS, LINEAR, PIL))
    return [
        f"{own:.2f}",
        *(f"{middle:.2f} ({low:.2f} to {high:.2f})" for middle, low, high in ratios),
    ]


def _verdict(table: pd.DataFrame, mean: float, largest: int) -> list[str]:
    reached = ratio(table, SAME_STEPS, MEDSCALE)[0] >= FASTER
    difference = "identical" if largest == 0 else f"{mean:.2f}, {largest}"
    return [difference, f"[green]{FASTER}x reached" if reached else f"[red]{FASTER}x missed"]
