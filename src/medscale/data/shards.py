"""Shard sets: preprocessed images in memory-mapped chunks, with the labels and ids of the index."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import (
    atomic,
    digest,
    read_json,
    read_table,
    sha256,
    write_json,
    write_parquet,
)
from medscale.data import folds

META = "meta.json"
ROWS = "rows.parquet"
BOXES = "boxes.parquet"  # in shard sets for detection
HASH_THREADS = 8  # threads that compute digests


def chunk_name(number: int) -> str:
    """Return the file name of a chunk of images."""
    return f"images-{number:05d}.npy"


def write_chunk(folder: Path, number: int, images: np.ndarray) -> None:
    """Write one chunk (uint8, shape n,H,W,C) atomically."""
    with atomic(folder / chunk_name(number)) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(images, dtype=np.uint8), allow_pickle=False)


def seal(
    folder: Path,
    rows: pd.DataFrame,
    classes: list[str],
    inputs: dict[str, Any],
    digests: list[str] | None = None,
) -> None:
    """Write rows.parquet and then meta.json, which marks a shard set as finished.

    Args:
        folder: folder of the finished chunks.
        rows: ``id, label`` (int64 code), ``split, group``, in the order of the chunks' images.
        classes: class names in the order of their codes.
        inputs: preprocessing, versions and digests of the inputs, kept in meta.json.
        digests: SHA-256 of the chunks in order; None: compute them.

    Raises:
        MedscaleError: when the number of images in the chunks differs from the number of rows.
    """
    files = sorted(folder.glob("images-*.npy"))
    shapes = [np.load(file, mmap_mode="r", allow_pickle=False).shape for file in files]
    images = sum(shape[0] for shape in shapes)
    if images != len(rows):
        raise MedscaleError(
            f"{folder}: the chunks have {images} images, but the index has {len(rows)} rows; "
            "delete the folder and run again"
        )
    write_parquet(folder / ROWS, rows)
    parts = zip(files, shapes, digests or map(sha256, files), strict=True)
    chunks = [
        {"file": file.name, "images": int(shape[0]), "sha256": sha} for file, shape, sha in parts
    ]
    meta = {
        "classes": classes,
        "shape": list(shapes[0][1:]),
        "images": len(rows),
        "chunks": chunks,
        **inputs,
    }
    write_json(folder / META, meta | {"digest": digest(meta | {"rows": sha256(folder / ROWS)})})


@dataclass(frozen=True)
class Shards:
    """A finished shard set, opened for reading; images stay on disk until they are gathered."""

    folder: Path
    meta: dict[str, Any]
    rows: pd.DataFrame = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> Shards:
        """Open a shard set.

        Raises:
            MedscaleError: when it is unfinished, or when a chunk is missing or has another number
                of images than meta.json.
        """
        folder = Path(folder)
        if not (folder / META).is_file():
            raise MedscaleError(
                f"{folder} has no finished shards ({META} is missing); create them first: "
                "snakemake data"
            )
        rows = read_table(folder / ROWS, "delete the folder and run again")
        shards = cls(folder, read_json(folder / META), rows)
        for chunk, array in zip(shards.meta["chunks"], shards._arrays, strict=True):
            if array.shape[0] != chunk["images"]:
                raise MedscaleError(
                    f"{folder / chunk['file']}: {array.shape[0]} images instead of "
                    f"{chunk['images']}"
                )
        return shards

    def verify(self, memory: Path | None = None) -> None:
        """Compare the digests of all files with those of meta.json.

        Args:
            memory: file with inode, size and time of files that were verified before and are not
                read again; None: read all files.

        Raises:
            MedscaleError: when files differ; the message names them.
        """
        states = {name: _state(self.folder / name) for name in self._digests()}
        verified = _verified_states(memory)
        unknown = [name for name, state in states.items() if verified.get(name) != state]
        with ThreadPoolExecutor(HASH_THREADS) as threads:  # hashing releases the interpreter's lock
            actual = threads.map(sha256, (self.folder / name for name in unknown))
            digests = dict(zip(unknown, actual, strict=True))
        meta = {key: value for key, value in self.meta.items() if key != "digest"}
        rows = digests.get(ROWS) or sha256(self.folder / ROWS)
        expected = self._digests()
        damaged = [name for name in unknown if name != ROWS and digests[name] != expected[name]]
        if digest(meta | {"rows": rows}) != self.meta["digest"]:
            damaged.append(f"{ROWS} or {META}")
        if damaged:
            raise MedscaleError(
                f"{self.folder}: the content of {', '.join(damaged)} has changed since it was "
                f"written; check the disk and delete {META} there: snakemake then computes the "
                "damaged parts again"
            )
        if memory is not None and unknown:
            write_json(memory, states)

    def _digests(self) -> dict[str, str]:
        """Return the expected SHA-256 by file; that of the rows is only in the set's digest."""
        chunks = {chunk["file"]: chunk["sha256"] for chunk in self.meta["chunks"]}
        boxes = {BOXES: self.meta["boxes"]} if "boxes" in self.meta else {}
        return {**chunks, **boxes, ROWS: ""}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their codes."""
        return list(self.meta["classes"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.meta["shape"]
        return height, width, channels

    @cached_property
    def labels(self) -> np.ndarray:
        """Class codes, int64, shape N."""
        return self.rows["label"].to_numpy(np.int64)

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids of the index, int64, shape N."""
        return self.rows["id"].to_numpy(np.int64)

    def of_fold(self, fold: int | None) -> Shards:
        """Return the same images with the splits of a fold; None: with those of the index.

        Raises:
            MedscaleError: when the fold does not exist.
        """
        return replace(self, rows=folds.of_fold(self.rows, fold))

    def positions(self, split: str) -> np.ndarray:
        """Return the positions (int64, ascending) of the images of a split: train, val or test."""
        return np.flatnonzero(self.rows["split"].to_numpy() == split)

    def gather(self, positions: np.ndarray) -> np.ndarray:
        """Return the images at ``positions``, in that order: uint8, shape n,H,W,C."""
        images = np.empty((len(positions), *self.shape), np.uint8)
        chunk_of = np.searchsorted(self._ends, positions, side="right")
        for chunk in np.unique(chunk_of):
            places = np.flatnonzero(chunk_of == chunk)
            start = self._ends[chunk - 1] if chunk else 0
            images[places] = self._arrays[chunk][positions[places] - start]
        return images

    @cached_property
    def _arrays(self) -> list[np.ndarray]:
        try:
            return [
                np.load(self.folder / c["file"], mmap_mode="r", allow_pickle=False)
                for c in self.meta["chunks"]
            ]
        except (OSError, ValueError) as error:
            raise MedscaleError(
                f"{self.folder}: a chunk is missing or damaged ({error}); delete the folder"
            ) from None

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([chunk["images"] for chunk in self.meta["chunks"]])


def _state(file: Path) -> list[int]:
    """Return device, inode, size and time of a file, which change if it is written or replaced."""
    try:
        status = file.stat()
    except OSError as error:
        raise MedscaleError(f"{file} cannot be read ({error.strerror})") from None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def _verified_states(memory: Path | None) -> dict[str, list[int]]:
    with suppress(MedscaleError, OSError):  # missing or damaged: everything is read again
        content = read_json(memory) if memory is not None else {}
        return content if isinstance(content, dict) else {}
    return {}
