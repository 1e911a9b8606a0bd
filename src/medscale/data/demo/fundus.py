"""Synthetic fundus photographs in SMDG-19's layout: a drawn stand-in for a download, traps included."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pydantic import Field, ValidationError

from medscale.config import Strict
from medscale.data.demo.draw import photograph
from medscale.errors import MedscaleError
from medscale.files import read_json, write_json
from medscale.log import log, track

MARKER = "demo.json"
GLAUCOMA = 0.39  # share of glaucoma, as in fundus-pytorch
CUP_TO_DISC = {0: (0.41, 0.09), 1: (0.69, 0.09)}  # mean and standard deviation by label
ODD_FILES = ("val/1/BEH-100001.png", "test/0/BEH-100002.png", "train/1/BEH-100003.png", "train/0/Thumbs.db")
SETS = {0: ("BEH", "OIA-ODIR-TRAIN", "G1020", "REFUGE1-train"), 1: ("BEH", "OIA-ODIR-TRAIN", "EyePACS-Glaucoma")}


class Options(Strict):
    """Options of the synthetic set."""

    unique: int = Field(480, ge=30, le=100_000, description="different images; each is written under two names")
    seed: int = Field(0, ge=0)
    size: int = Field(256, ge=32, le=4096, description="pixels a side; the real set has 512")


class Photograph(NamedTuple):
    """One image to draw: what decides its pixels, and the paths it is written to."""

    number: int
    cup_to_disc: float
    paths: tuple[str, ...]


def generate(options: dict[str, Any], out: Path) -> None:
    """Draw the photographs and write them to ``out``, with the traps that real copies of the download have.

    The cup-to-disc ratios of the two classes overlap, so that no classifier can be right on more than about 94 % of the
    images. As in real copies, val and test together are train again under other names. Further files: two images under
    both labels, a truncated one, an empty one, a text file named .png, and a Thumbs.db. The same options give the same
    pixels with the same version of OpenCV, whatever the number of processes.

    Raises:
        MedscaleError: when an option is wrong or ``out`` holds files that no generator has written.
    """
    try:
        settings = Options.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MedscaleError(f"source.options.{where} of the synthetic images: {first['msg']}") from None
    photographs = plan(settings)
    _clear(out, [*ODD_FILES, MARKER, *(path for photo in photographs for path in photo.paths)])
    for folder in {Path(path).parent for photo in photographs for path in photo.paths}:
        (out / folder).mkdir(parents=True, exist_ok=True)
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
        work = pool.map(partial(_write, settings, out), photographs, chunksize=8)
        for _ in track(work, "drawing photographs", len(photographs)):
            pass
    _write_odd_files(out, photographs)
    write_json(out / MARKER, {"synthetic": True, "kind": "smdg", "options": settings.model_dump()})
    log.info("%d synthetic photographs in %s", len(photographs), out)


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
    """Draw one photograph and write its bytes under each of its names; unfinished sets lack the marker."""
    rng = np.random.default_rng([settings.seed, photo.number])
    pixels = photograph(rng, photo.cup_to_disc, settings.size)
    data = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    for path in photo.paths:
        (out / path).write_bytes(data)


def _write_odd_files(out: Path, photographs: list[Photograph]) -> None:
    """What real downloads also hold; the audit lists each."""
    whole = (out / photographs[0].paths[0]).read_bytes()
    contents = (whole[: len(whole) // 2], b"", b"not an image\n", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    for path, data in zip(ODD_FILES, contents, strict=True):
        (out / path).write_bytes(data)


def _clear(out: Path, planned: list[str]) -> None:
    """Remove what an earlier generator wrote, by its list in a file beside the folder, and list what comes now."""
    list_file = out.parent / f".{out.name}.synthetic.json"
    earlier = set(read_json(list_file)) if list_file.is_file() else set()
    here = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()} if out.is_dir() else set()
    if foreign := sorted(here - earlier):
        raise MedscaleError(
            f"{out} holds files that were not generated, such as {foreign[0]}; "
            "move them away, or set source.synthetic to false"
        )
    for path in here:
        (out / path).unlink()
    write_json(list_file, planned)


def _one_thread() -> None:
    cv2.setNumThreads(1)
