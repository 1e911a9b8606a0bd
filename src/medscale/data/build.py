"""From index.parquet to shards: chunks of images are preprocessed under Dask; finished ones are not made again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import digest, read_json, sha256, write_json, write_parquet
from medscale.base.log import log
from medscale.config.sections import Preprocess
from medscale.data import boxes, images, preprocess, shards
from medscale.data.cluster import client, run_all
from medscale.data.images import Unreadable, read_bytes
from medscale.data.index import FIRST
from medscale.data.limits import chunk_size
from medscale.data.prepare import from_file
from medscale.data.shards import META, ROWS, chunk_name, seal, write_chunk
from medscale.resources.machines import Dask

Image = tuple[str, str, int, int]  # path, sha256, width, height as in the index
Work = tuple[str, int, str, str, list[Image], Preprocess]  # the arguments of make_chunk
IMAGE = ("path", "sha256", "width", "height")
HASHING = 8  # threads that read finished chunks again


def build_shards(
    index: Path,
    raw: Path,
    settings: Preprocess,
    dask: Dask,
    out: Path,
    *,
    with_boxes: bool = False,
    beside: Sequence[Path] = (),
) -> None:
    """Preprocess the index's images into a shard set in ``out``, in the order of their ids.

    Beside each chunk stands a small file with the digest of what it was made from (preprocessing, code, libraries,
    SHA-256 of each image). Chunks for which that still holds are kept, also after an interruption; others are made
    or removed; those that a shard set in ``beside`` has already (of the same images with another split, say) are
    linked. The bytes do not depend on the number of workers. ``with_boxes`` writes the index's boxes beside the
    images, as shares of their sides (``boxes.parquet``).

    Raises:
        MedscaleError: when the index or an image is missing, or an image has changed since it was indexed.
    """
    table, raw = read_index(index), raw.resolve()
    localized = boxes.relative(table, index) if with_boxes else None
    recipe = {"preprocess": settings.model_dump(mode="json"), "versions": versions()}
    work = chunks(table, raw, settings, out, settings.chunk or chunk_size(len(table)))
    keys = [key for _, _, key, *_ in work]
    out.mkdir(parents=True, exist_ok=True)
    todo = [work[number] for number in _borrow(out, beside, keys, _unfinished(out, keys))]
    log.info("%d of %d chunks are finished already", len(work) - len(todo), len(work))
    if todo:
        with client(dask, tasks=len(todo), folder=raw) as connection:
            for _ in run_all(connection, make_chunk, todo, "preprocessing chunks", dask.workers):
                pass
    rows = table[["id", "label", "split", "group", *_metadata(table)]]
    rows = rows.assign(label=table["label"].cat.codes.astype(np.int64))
    about = {**recipe, "inputs": digest(keys)}
    if localized is not None:
        write_parquet(out / boxes.BOXES, localized)
        about["boxes"] = sha256(out / boxes.BOXES)
    digests = [str(read_json(_key_file(out, number))["sha256"]) for number in range(len(work))]
    seal(out, rows, [str(c) for c in table["label"].cat.categories], about, digests)


def chunks(
    table: pd.DataFrame, raw: Path, settings: Preprocess, out: Path, size: int
) -> list[Work]:
    """The work on an index's rows, ``size`` images a chunk: the arguments of ``make_chunk``, one tuple a chunk."""
    recipe = {"preprocess": settings.model_dump(mode="json"), "versions": versions()}
    work: list[Work] = []
    for number, start in enumerate(range(0, len(table), size)):
        images = list(
            table.iloc[start : start + size][list(IMAGE)].itertuples(index=False, name=None)
        )
        key = digest({**recipe, "inputs": [sha256 for _, sha256, *_ in images]})
        work.append((str(out.resolve()), number, key, str(raw), images, settings))
    return work


def make_chunk(
    out: str, number: int, key: str, raw: str, chunk: list[Image], settings: Preprocess
) -> int | MedscaleError:
    """Make one chunk and, after it, its key file; runs on a Dask worker.

    Returns:
        The chunk's number, or the error that ends the work (returned, as ``run_all`` wants it).
    """
    try:
        pixels = np.stack([make_one(raw, image, settings) for image in chunk])
        write_chunk(Path(out), number, pixels)
        write_json(
            _key_file(Path(out), number),
            {"key": key, "sha256": sha256(Path(out, chunk_name(number)))},
        )
    except MedscaleError as error:
        return MedscaleError(str(error))
    return number


def make_one(raw: str, image: Image, settings: Preprocess) -> np.ndarray:
    """Read, check, decode and preprocess one image of the index: uint8 RGB, shape size,size,3.

    Raises:
        MedscaleError: when it cannot be read, or has changed since it was indexed.
    """
    path, wanted, width, height = image
    try:
        data = read_bytes(os.path.join(raw, path))
        if hashlib.sha256(data).hexdigest() == wanted:
            return from_file(data, settings, (width, height))
    except Unreadable as error:
        raise MedscaleError(
            f"{Path(raw, path)} cannot be read any more ({error}); make the index again"
        ) from None
    raise MedscaleError(f"{Path(raw, path)} has changed since it was indexed; make the index again")


@cache
def versions() -> dict[str, str]:
    """What decides a chunk's bytes beside images and settings: libraries, and a digest of this package's modules."""
    files = [Path(str(module.__file__)) for module in (images, preprocess, shards)]
    code = digest([sha256(file) for file in (*files, files[0].with_name("dicom.py"))])
    libraries = {
        name: _version(name) for name in ("pydicom", "pillow", "pylibjpeg-openjpeg", "kornia-rs")
    }
    return {"opencv": cv2.__version__, "numpy": np.__version__, **libraries, "code": code}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def read_index(path: Path) -> pd.DataFrame:
    """The index in the order of its ids.

    Raises:
        MedscaleError: when it is missing or no index.
    """
    if not path.is_file():
        raise MedscaleError(f"{path} does not exist; make it first: snakemake data")
    try:
        return pd.read_parquet(path).sort_values("id", ignore_index=True)
    except (OSError, ValueError, KeyError) as error:
        raise MedscaleError(f"{path} is no index ({error}); delete it and run again") from None


def _metadata(table: pd.DataFrame) -> list[str]:
    """The dataset's own columns that are numbers or words."""
    own = [name for name in table.columns if name not in FIRST]
    return [
        name
        for name in own
        if not table[name].map(lambda value: isinstance(value, list | np.ndarray)).any()
    ]


def _key_file(out: Path, number: int) -> Path:
    return out / chunk_name(number).replace(".npy", ".json")


def _unfinished(out: Path, keys: list[str]) -> list[int]:
    """Numbers of the chunks to make; whatever else is in the folder from before is removed first."""
    with ThreadPoolExecutor(
        HASHING
    ) as threads:  # hashing leaves the interpreter's lock to the others
        kept = threads.map(lambda one: _is_finished(out, *one), enumerate(keys))
        finished = {number for number, keep in enumerate(kept) if keep}
    keep = {
        file for number in finished for file in (out / chunk_name(number), _key_file(out, number))
    }
    stale = [
        file
        for pattern in ("images-*", ".images-*")
        for file in out.glob(pattern)
        if file not in keep
    ]
    for file in [out / META, out / ROWS, *stale]:
        file.unlink(missing_ok=True)
    return [number for number in range(len(keys)) if number not in finished]


def _borrow(out: Path, beside: Sequence[Path], keys: list[str], missing: list[int]) -> list[int]:
    """Link chunks that other shard sets have already; the numbers of those that are left to make."""
    others: dict[str, Path] = {}
    for file in (file for folder in beside for file in sorted(folder.glob("images-*.json"))):
        with suppress(MedscaleError):  # unfinished or damaged: not to be borrowed
            others.setdefault(str(read_json(file).get("key")), file)
    return [
        number
        for number in missing
        if not _link(out, number, keys[number], others.get(keys[number]))
    ]


def _link(out: Path, number: int, key: str, other: Path | None) -> bool:
    if other is None:
        return False
    try:
        os.link(other.with_suffix(".npy"), out / chunk_name(number))
        os.link(other, _key_file(out, number))
    except OSError:  # gone meanwhile, or on a file system without links
        return False
    return _is_finished(out, number, key)


def _is_finished(out: Path, number: int, key: str) -> bool:
    file = _key_file(out, number)
    if not file.is_file() or not (out / chunk_name(number)).is_file():
        return False
    try:
        about: dict[str, Any] = read_json(file)
    except MedscaleError:
        return False
    return about.get("key") == key and about.get("sha256") == sha256(out / chunk_name(number))
