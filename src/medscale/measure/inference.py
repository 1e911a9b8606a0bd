"""Latency and throughput of a trained network by way of running it, threads and batch size; decoding apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.config.sections import Latency
from medscale.data.build import read_index
from medscale.measure.record import cores, in_turns, warm
from medscale.serve import runtime
from medscale.serve.predict import Predictor, load
from medscale.serve.runtime import Run

WAYS = {
    "eager": ("PyTorch, eager", "PyTorch, 32 bit, in inference mode"),
    "compiled": (
        "PyTorch, compiled",
        "the same, compiled by inductor: once for one image, once for larger batches",
    ),
    "onnx": ("ONNX Runtime", "the export in 32 bit"),
    "fp16": ("ONNX Runtime, 16 bit", "the export in 16 bit"),
    "int8": ("ONNX Runtime, INT8", "the export quantized to 8 bits"),
}
PYTORCH = ("eager", "compiled")
WARM_UP = 5
PERCENTILES = (50, 95, 99)
COLUMNS = ["run", "way", "device", "threads", "kind", "batch", "repeat", "images", "seconds"]
COLUMNS += [f"p{one}_ms" for one in PERCENTILES]


@dataclass(frozen=True)
class Way:
    """A network ready to run on so many threads (of a GPU: 0)."""

    name: str
    device: str
    threads: int
    run: Run


def measure_inference(
    results: Sequence[Path], exported: Path, index: Path, raw: Path, settings: Latency
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Time each way of running each result on the same test images, in turns.

    Calls go from host memory to host memory: preprocessed uint8 images in, probabilities out. ``latency`` is of single
    calls with one image, ``throughput`` of passes over the images in batches, ``decode`` of reading, decoding and
    preprocessing the raw files on so many threads, and ``decoded`` of both, one after the other for each batch.

    Args:
        results: result folders.
        exported: folder of the files ``<run>.<format>.onnx``.
        index: the study's index.parquet, for the raw files.
        raw: folder that its paths are relative to.
        settings: which ways, threads, batch sizes, and how often.

    Returns:
        A row a repetition with the columns ``COLUMNS``; percentiles are of the calls of a repetition, of ``latency``
        only; and, by way or device that was asked for and is not here, why.

    Raises:
        MedscaleError: when an input is missing or damaged.
    """
    missing: dict[str, str] = {}
    rows, before = [], torch.get_num_threads()
    try:
        for result in results:
            predictor = load(result, device="cpu")
            files = _files(index, raw, settings.images)
            features = _unknown(predictor, len(files))
            pixels = np.stack([predictor.prepare(file)[0].pixels for file in files])
            ways = list(_ways(predictor, exported / result.name, settings, missing))
            for repeat in range(settings.repeats):
                for way in in_turns(ways, repeat):
                    where = {
                        "run": result.name,
                        "way": way.name,
                        "device": way.device,
                        "repeat": repeat,
                    }
                    for row in _timed(way, pixels, features, settings):
                        rows.append(where | row)
                    largest = max(settings.batches)
                    rows.append(where | _decoded(predictor, way, files, features, largest))
                for threads in _threads(settings):
                    where = {"run": result.name, "way": "decode", "device": "cpu", "repeat": repeat}
                    rows.append(where | _decode(predictor, threads, files))
            log.info("%s: %d ways measured", result.name, len(ways))
    finally:
        torch.set_num_threads(before)
    return pd.DataFrame(rows, columns=COLUMNS), missing


def _ways(
    predictor: Predictor, stem: Path, settings: Latency, missing: dict[str, str]
) -> Iterator[Way]:
    """What can be run here; why the others cannot goes to ``missing``."""
    for threads in _threads(settings):
        for name in (one for one in settings.ways if one in PYTORCH):
            try:
                torch.set_num_threads(threads)
                yield Way(
                    name, "cpu", threads, runtime.eager(predictor, compiled=name == "compiled")
                )
            except MedscaleError as error:
                missing[name] = str(error)
    for device in settings.devices:
        if (why := runtime.absent(device)) is not None:
            missing[device] = why
            continue
        for threads in _threads(settings) if device == "cpu" else [0]:
            for file_of in (one for one in settings.ways if one not in PYTORCH):
                file = stem.with_name(f"{stem.name}.{file_of}.onnx")
                if not file.is_file():
                    raise MedscaleError(
                        f"{file} does not exist; add {file_of} to benchmarks.export.formats"
                    )
                yield Way(file_of, device, threads, runtime.onnx(file, device, threads))


def _timed(
    way: Way, pixels: np.ndarray, features: np.ndarray | None, settings: Latency
) -> Iterator[dict[str, Any]]:
    """Latency of single images, then throughput of each batch size."""
    torch.set_num_threads(max(way.threads, 1))
    each = []
    for call in range(-WARM_UP, settings.calls):
        at = call % len(pixels)
        start = perf_counter()
        way.run(pixels[at : at + 1], None if features is None else features[at : at + 1])
        each += [perf_counter() - start] * (call >= 0)
    told = {f"p{one}_ms": 1000 * float(np.percentile(each, one)) for one in PERCENTILES}
    about = {"threads": way.threads, "kind": "latency", "batch": 1}
    yield about | {"images": len(each), "seconds": sum(each)} | told
    for batch in settings.batches:
        images, parts = np.resize(pixels, (max(len(pixels), batch), *pixels.shape[1:])), features
        if parts is not None:
            parts = np.resize(parts, (len(images), parts.shape[1]))
        way.run(images[:batch], None if parts is None else parts[:batch])
        start = perf_counter()
        runtime.in_batches(way.run, images, parts, batch)
        seconds = perf_counter() - start
        yield about | {
            "kind": "throughput",
            "batch": batch,
            "images": len(images),
            "seconds": seconds,
        }


def _decode(predictor: Predictor, threads: int, files: list[Path]) -> dict[str, Any]:
    """Reading, decoding and preprocessing alone; each thread does whole images."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(threads) as pool:
        start = perf_counter()
        list(pool.map(predictor.prepare, files))
        seconds = perf_counter() - start
    cv2.setNumThreads(-1)
    return {
        "threads": threads,
        "kind": "decode",
        "batch": 1,
        "images": len(files),
        "seconds": seconds,
    }


def _decoded(
    predictor: Predictor, way: Way, files: list[Path], features: np.ndarray | None, batch: int
) -> dict[str, Any]:
    """From raw files to probabilities."""
    torch.set_num_threads(max(way.threads, 1))
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(way.threads or len(cores())) as pool:
        start = perf_counter()
        for at in range(0, len(files), batch):
            read = [
                prepared.pixels
                for prepared, _ in pool.map(predictor.prepare, files[at : at + batch])
            ]
            way.run(np.stack(read), None if features is None else features[at : at + batch])
        seconds = perf_counter() - start
    cv2.setNumThreads(-1)
    return {
        "threads": way.threads,
        "kind": "decoded",
        "batch": batch,
        "images": len(files),
        "seconds": seconds,
    }


def _threads(settings: Latency) -> list[int]:
    """Numbers of threads, 0 being all cores of this process."""
    return sorted({threads or len(cores()) for threads in settings.threads})


def _files(index: Path, raw: Path, most: int) -> list[Path]:
    """At most so many raw test images, evenly spread, read once so that they are in the system's cache."""
    table = read_index(index)
    test = table.loc[table["split"] == "test", "path"]
    if test.empty:
        raise MedscaleError(f"{index}: no image is in the test split, so no inference can be timed")
    places = np.unique(np.linspace(0, len(test) - 1, min(most, len(test))).round().astype(int))
    files = [raw / path for path in test.iloc[places]]
    warm(files)
    return files


def _unknown(predictor: Predictor, count: int) -> np.ndarray | None:
    """Features of images of which nothing is known: their values do not change the time."""
    return predictor.features([{}] * count)
