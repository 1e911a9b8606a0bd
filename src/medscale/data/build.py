"""From index.parquet to shards: chunks of images are preprocessed under Dask; finished ones are not made again."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medscale.config import Dask, Preprocess
from medscale.data import images, preprocess, shards
from medscale.data.cluster import client, run_all
from medscale.data.images import Unreadable, decode, read_bytes
from medscale.data.index import FIRST
from medscale.data.preprocess import reduction
from medscale.data.shards import META, ROWS, chunk_name, seal, write_chunk
from medscale.errors import MedscaleError
from medscale.files import digest, read_json, sha256, write_json
from medscale.log import log

Image = tuple[str, str, int, int]  # path, sha256, width, height as in the index


def build_shards(index: Path, raw: Path, settings: Preprocess, dask: Dask, out: Path) -> None:
    """Preprocess the index's images into a shard set in ``out``, in the order of their ids.

    Beside each chunk stands a small file with the digest of what it was made from (preprocessing, code, libraries,
    SHA-256 of each image). Chunks for which that still holds are kept, also after an interruption; others are made
    or removed. The bytes do not depend on the number of workers.

    Raises:
        MedscaleError: when the index or an image is missing, or an image has changed since it was indexed.
    """
    table, raw = _read_index(index), raw.resolve()
    recipe = {"preprocess": settings.model_dump(mode="json"), "versions": versions()}
    chunks = [table.iloc[start : start + settings.chunk] for start in range(0, len(table), settings.chunk)]
    keys = [digest({**recipe, "inputs": chunk["sha256"].tolist()}) for chunk in chunks]
    out.mkdir(parents=True, exist_ok=True)
    todo = _unfinished(out, keys)
    log.info("%d of %d chunks are finished already", len(chunks) - len(todo), len(chunks))
    if todo:
        work = [(str(out.resolve()), n, keys[n], str(raw), _images(chunks[n]), settings) for n in todo]
        with client(dask, tasks=len(todo), folder=raw) as connection:
            for _ in run_all(connection, make_chunk, work, "preprocessing chunks"):
                pass
    rows = table[["id", "label", "split", "group", *_metadata(table)]]
    rows = rows.assign(label=table["label"].cat.codes.astype(np.int64))
    seal(out, rows, [str(c) for c in table["label"].cat.categories], {**recipe, "inputs": digest(keys)})


def make_chunk(
    out: str, number: int, key: str, raw: str, chunk: list[Image], settings: Preprocess
) -> int | MedscaleError:
    """Make one chunk and, after it, its key file; runs on a Dask worker.

    Returns:
        The chunk's number, or the error that ends the work (returned, as ``run_all`` wants it).
    """
    try:
        pixels = np.stack([_make_one(raw, image, settings) for image in chunk])
        write_chunk(Path(out), number, pixels)
        write_json(_key_file(Path(out), number), {"key": key, "sha256": sha256(Path(out, chunk_name(number)))})
    except MedscaleError as error:
        return MedscaleError(str(error))
    return number


def _make_one(raw: str, image: Image, settings: Preprocess) -> np.ndarray:
    path, wanted, width, height = image
    try:
        data = read_bytes(Path(raw, path))
        if hashlib.sha256(data).hexdigest() == wanted:
            reduce = reduction(width, height, settings.size)
            return preprocess.preprocess(decode(data, reduce), settings)
    except Unreadable as error:
        raise MedscaleError(f"{Path(raw, path)} cannot be read any more ({error}); make the index again") from None
    raise MedscaleError(f"{Path(raw, path)} has changed since it was indexed; make the index again")


@cache
def versions() -> dict[str, str]:
    """What decides a chunk's bytes beside images and settings: libraries, and a digest of this package's modules."""
    code = digest([sha256(str(module.__file__)) for module in (images, preprocess, shards)])
    return {"opencv": cv2.__version__, "numpy": np.__version__, "code": code}


def _read_index(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise MedscaleError(f"{path} does not exist; make it first: snakemake data")
    try:
        return pd.read_parquet(path).sort_values("id", ignore_index=True)
    except (OSError, ValueError, KeyError) as error:
        raise MedscaleError(f"{path} is no index ({error}); delete it and run again") from None


def _metadata(table: pd.DataFrame) -> list[str]:
    """The dataset's own columns that are numbers or words."""
    own = [name for name in table.columns if name not in FIRST]
    return [name for name in own if not table[name].map(lambda value: isinstance(value, list | np.ndarray)).any()]


def _images(chunk: pd.DataFrame) -> list[Image]:
    return list(chunk[["path", "sha256", "width", "height"]].itertuples(index=False, name=None))


def _key_file(out: Path, number: int) -> Path:
    return out / chunk_name(number).replace(".npy", ".json")


def _unfinished(out: Path, keys: list[str]) -> list[int]:
    """Numbers of the chunks to make; whatever else is in the folder from before is removed first."""
    finished = {number for number, key in enumerate(keys) if _is_finished(out, number, key)}
    keep = {file for number in finished for file in (out / chunk_name(number), _key_file(out, number))}
    stale = [file for pattern in ("images-*", ".images-*") for file in out.glob(pattern) if file not in keep]
    for file in [out / META, out / ROWS, *stale]:
        file.unlink(missing_ok=True)
    return [number for number in range(len(keys)) if number not in finished]


def _is_finished(out: Path, number: int, key: str) -> bool:
    file = _key_file(out, number)
    if not file.is_file() or not (out / chunk_name(number)).is_file():
        return False
    try:
        about: dict[str, Any] = read_json(file)
    except MedscaleError:
        return False
    return about.get("key") == key and about.get("sha256") == sha256(out / chunk_name(number))
