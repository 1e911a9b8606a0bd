"""Preparation of shards from an index: Dask workers preprocess chunks; finished chunks are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import digest, read_json, sha256, write_json, write_parquet
from medscale.base.log import log
from medscale.data import boxes, guard
from medscale.data.cluster import client, run_all
from medscale.data.images import Unreadable
from medscale.data.index import INDEX_COLUMNS
from medscale.data.index_file import read_index
from medscale.data.limits import chunk_size
from medscale.data.prepare import IndexedImage, read_image
from medscale.data.settings import LIMITS, Dask, Limits, Preprocess
from medscale.data.shards import BOXES, HASH_THREADS, META, ROWS, chunk_name, seal, write_chunk
from medscale.data.versions import versions

# Arguments of ``make_chunk``.
Work = tuple[str, int, str, str, list[IndexedImage], Preprocess, Limits]
IMAGE = ["path", "sha256", "width", "height"]


def build_shards(
    index: Path,
    raw: Path,
    settings: Preprocess,
    dask: Dask,
    out: Path,
    *,
    limits: Limits = LIMITS,
    with_boxes: bool = False,
    siblings: Sequence[Path] = (),
) -> None:
    """Preprocess the images of an index into a shard set, in the order of their ids.

    Each chunk has a key file with the digest of its inputs (preprocessing, code, libraries, SHA-256
    of each image). Chunks with a valid key are kept, also after an interruption; others are
    computed again or removed. The bytes do not depend on the number of workers.

    Args:
        index: path of index.parquet.
        raw: folder of the raw images.
        settings: the preprocessing.
        dask: settings of the Dask workers.
        out: folder of the shard set.
        limits: limits for decoding an image; they change no byte of a shard.
        with_boxes: whether to write the boxes of the index as shares of the images' sides
            (boxes.parquet).
        siblings: other shard sets, such as those of the same images with another split. Their
            chunks are linked if the keys agree.

    Raises:
        MedscaleError: when the index or an image is missing, or an image has changed since it was
            indexed.
    """
    table, raw = read_index(index), raw.resolve()
    relative_boxes = boxes.relative(table, index) if with_boxes else None
    size = settings.chunk or chunk_size(len(table))
    work = chunks(table, raw, settings, out, size, limits)
    keys = [key for _, _, key, *_ in work]
    out.mkdir(parents=True, exist_ok=True)
    pending = [
        work[number] for number in _link_chunks(out, siblings, keys, _clear_stale(out, keys))
    ]
    log.info("%d of %d chunks are finished already", len(work) - len(pending), len(work))
    if pending:
        _make_chunks(pending, raw, dask, limits)
    rows = table[["id", "label", "split", "group", *_scalar_metadata(table)]]
    rows = rows.assign(label=table["label"].cat.codes.astype(np.int64))
    inputs = {**_recipe(settings), "inputs": digest(keys)}
    if relative_boxes is not None:
        write_parquet(out / BOXES, relative_boxes)
        inputs["boxes"] = sha256(out / BOXES)
    digests = [str(read_json(_key_file(out, number))["sha256"]) for number in range(len(work))]
    seal(out, rows, [str(c) for c in table["label"].cat.categories], inputs, digests)


def _make_chunks(calls: Sequence[tuple[Any, ...]], raw: Path, dask: Dask, limits: Limits) -> None:
    """Call ``make_chunk`` with each of ``calls`` on the Dask workers."""
    decoding = limits, read_image
    with client(dask, make_chunk, decoding=decoding, tasks=len(calls), folder=raw) as connection:
        for _ in run_all(connection, make_chunk, calls, "preprocessing chunks", dask.workers):
            pass


def chunks(
    table: pd.DataFrame,
    raw: Path,
    settings: Preprocess,
    out: Path,
    size: int,
    limits: Limits = LIMITS,
) -> list[Work]:
    """Return the arguments of ``make_chunk`` for each chunk of ``size`` rows of an index."""
    recipe = _recipe(settings)
    work: list[Work] = []
    for number, start in enumerate(range(0, len(table), size)):
        rows = table.iloc[start : start + size]
        images = list(rows[IMAGE].itertuples(index=False, name=None))
        key = digest({**recipe, "inputs": rows["sha256"].tolist()})
        work.append((str(out.resolve()), number, key, str(raw), images, settings, limits))
    return work


def make_chunk(
    out: str,
    number: int,
    key: str,
    raw: str,
    images: list[IndexedImage],
    settings: Preprocess,
    limits: Limits = LIMITS,
) -> int | MedscaleError:
    """Write one chunk and then its key file; runs on a Dask worker.

    Images are decoded in a child process with limits, which a hostile file may crash.

    Returns:
        The chunk's number, or the error that ends the work (see ``cluster.run_all``).
    """
    try:
        pixels = [read_safely(limits, raw, image, settings) for image in images]
        write_chunk(Path(out), number, np.stack(pixels))
        digests = {"key": key, "sha256": sha256(Path(out, chunk_name(number)))}
        write_json(_key_file(Path(out), number), digests)
    except MedscaleError as error:
        return MedscaleError(str(error))  # a subclass with further arguments cannot be pickled
    return number


def read_safely(limits: Limits, raw: str, image: IndexedImage, settings: Preprocess) -> np.ndarray:
    """Call ``read_image`` in a child process with limits.

    Raises:
        MedscaleError: for a file that exceeds them.
    """
    try:
        return guard.call(limits, read_image, raw, image, settings)
    except Unreadable as error:
        raise MedscaleError(
            f"{Path(raw, image[0])} exceeds a limit ({error}); raise source.limits, or index again"
        ) from None


def _recipe(settings: Preprocess) -> dict[str, Any]:
    return {"preprocess": settings.model_dump(mode="json"), "versions": versions()}


def _scalar_metadata(table: pd.DataFrame) -> list[str]:
    """Return the names of the dataset's own columns that hold numbers or words, not lists."""
    return [
        name
        for name in table.columns
        if name not in INDEX_COLUMNS
        and not table[name].map(lambda value: isinstance(value, list | np.ndarray)).any()
    ]


def _key_file(out: Path, number: int) -> Path:
    return out / chunk_name(number).replace(".npy", ".json")


def _clear_stale(out: Path, keys: list[str]) -> list[int]:
    """Remove all files but finished chunks; return the numbers of the chunks to compute."""
    with ThreadPoolExecutor(HASH_THREADS) as threads:  # hashing releases the interpreter's lock
        finished = list(threads.map(lambda item: _is_finished(out, *item), enumerate(keys)))
    keep = {
        file
        for number, is_finished in enumerate(finished)
        if is_finished
        for file in (out / chunk_name(number), _key_file(out, number))
    }
    for file in (out / META, out / ROWS, *out.glob("images-*"), *out.glob(".images-*")):
        if file not in keep:
            file.unlink(missing_ok=True)
    return [number for number, is_finished in enumerate(finished) if not is_finished]


def _link_chunks(
    out: Path, siblings: Sequence[Path], keys: list[str], missing: list[int]
) -> list[int]:
    """Link missing chunks from other shard sets; return the numbers that are still missing."""
    key_files: dict[str, Path] = {}
    for file in (file for folder in siblings for file in sorted(folder.glob("images-*.json"))):
        with suppress(MedscaleError):  # unfinished or damaged
            key_files.setdefault(str(read_json(file).get("key")), file)
    return [n for n in missing if not _link_chunk(out, n, keys[n], key_files.get(keys[n]))]


def _link_chunk(out: Path, number: int, key: str, key_file: Path | None) -> bool:
    if key_file is None:
        return False
    try:
        os.link(key_file.with_suffix(".npy"), out / chunk_name(number))
        os.link(key_file, _key_file(out, number))
    except OSError:  # the file was removed, or the file system has no links
        return False
    return _is_finished(out, number, key)


def _is_finished(out: Path, number: int, key: str) -> bool:
    file, chunk = _key_file(out, number), out / chunk_name(number)
    if not file.is_file() or not chunk.is_file():
        return False
    try:
        entry: dict[str, Any] = read_json(file)
    except MedscaleError:
        return False
    return entry.get("key") == key and entry.get("sha256") == sha256(chunk)
