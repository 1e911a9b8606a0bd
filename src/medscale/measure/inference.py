"""Latency and throughput of a trained network, by runtime, threads and batch size."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
from medscale.config.benchmarks import Latency
from medscale.data.index_file import read_index
from medscale.measure.exporting import time_pass
from medscale.measure.record import cores, in_turns, spread, warm
from medscale.serve import bundle, runtime
from medscale.serve.formats.registry import BENCHMARKED, ONNX, PYTORCH_WAYS
from medscale.serve.predict import Predictor, load
from medscale.serve.runtime import Run

WAYS = {
    "eager": ("PyTorch, eager", "PyTorch, fp32 or tf32, in inference mode"),
    "compiled": (
        "PyTorch, compiled",
        "the same, compiled by inductor: once for one image, once for larger batches",
    ),
    "captured": ("PyTorch, CUDA graph", "the same, captured as a CUDA graph for each batch size"),
    "captured_compiled": (
        "PyTorch, compiled, CUDA graph",
        "the same, compiled for each batch size and captured as a CUDA graph",
    ),
} | {name: (form.way, form.way_description) for name, form in BENCHMARKED.items()}
WARM_UP = 5  # calls before those that are timed
PERCENTILES = (50, 95, 99)
COLUMNS = ["run", "way", "device", "format", "threads", "kind", "batch", "repeat", "images"]
COLUMNS += ["seconds"]
COLUMNS += [f"p{percentile}_ms" for percentile in PERCENTILES]


@dataclass(frozen=True)
class Way:
    """A network that is loaded in one runtime, and ready to run."""

    name: str  # a key of ``WAYS``
    device: str  # cpu, cuda or tensorrt
    format: str  # number format; for an export the format of its file
    threads: int  # number of CPU threads; 0 for a GPU
    run: Run  # function from images and features to probabilities


@dataclass(frozen=True)
class Images:
    """The test images of one result: raw files, and their inputs to the network.

    No metadata are used: their values do not change the time.
    """

    files: list[Path]
    pixels: np.ndarray
    features: np.ndarray | None


def measure_inference(
    results: Sequence[Path], export_folder: Path, index: Path, raw: Path, settings: Latency
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Time each way of running each result on the same test images, in turns.

    A call takes preprocessed uint8 images from host memory and returns probabilities to it. A row
    has one of four kinds:

    - ``latency``: single calls with one image;
    - ``throughput``: a pass over all images in batches;
    - ``decode``: reading, decoding and preprocessing the raw files;
    - ``decoded``: decoding and inference of each batch. A CPU does one after the other; with a GPU,
      the host decodes the next batch during inference.

    Args:
        results: result folders.
        export_folder: folder of the files ``<run>.<format>.onnx``.
        index: the study's index.parquet, for the paths of the raw files.
        raw: folder that its paths are relative to.
        settings: ways, threads, batch sizes, and numbers of calls, images and repetitions.

    Returns:
        One row for each repetition with the columns ``COLUMNS``; only ``latency`` has percentiles,
        over the calls of a repetition. Second, the reason for each way or device that is not
        available.

    Raises:
        MedscaleError: when an input is missing or damaged.
    """
    missing: dict[str, str] = {}
    rows, before = [], torch.get_num_threads()
    try:
        for result in results:
            fold = 1 if bundle.read(result).folds else None  # the network that was exported
            predictor = load(result, device="cpu", fold=fold)
            on_gpu = load(result, device="cuda", fold=fold) if _has_gpu(settings) else None
            images = _read_images(predictor, _files(index, raw, settings.images))
            ways = [
                *_pytorch_ways(predictor, on_gpu, settings, missing),
                *_exported_ways(on_gpu, export_folder / result.name, settings, missing),
            ]
            for repeat in range(settings.repeats):
                for row in _repetition(predictor, ways, images, settings, repeat):
                    rows.append({"run": result.name, "repeat": repeat} | row)
            log.info("%s: %d ways measured", result.name, len(ways))
    finally:
        torch.set_num_threads(before)
    return pd.DataFrame(rows, columns=COLUMNS), missing


def _repetition(
    predictor: Predictor, ways: list[Way], images: Images, settings: Latency, repeat: int
) -> Iterator[dict[str, Any]]:
    """Time each way once, then decoding on each number of threads."""
    for way in in_turns(ways, repeat):
        columns = {"way": way.name, "device": way.device, "format": way.format}
        columns |= {"threads": way.threads}
        torch.set_num_threads(max(way.threads, 1))
        yield columns | _latency(way, images, settings.calls)
        for batch in settings.batches:
            yield columns | _throughput(way, images, batch)
        yield columns | _decode_and_run(predictor, way, images, max(settings.batches))
    for threads in _threads(settings):
        columns = {"way": "decode", "device": "cpu", "format": "uint8", "threads": threads}
        yield columns | _decode(predictor, threads, images.files)


def _has_gpu(settings: Latency) -> bool:
    return {"cuda", "tensorrt"} & {*settings.devices} != set() and torch.cuda.is_available()


def _pytorch_ways(
    on_cpu: Predictor, on_gpu: Predictor | None, settings: Latency, missing: dict[str, str]
) -> Iterator[Way]:
    """Yield the available ways in PyTorch; ``missing`` receives the reason for each other way."""
    sizes = sorted({1, *settings.batches})
    places = [(on_cpu, threads) for threads in _threads(settings)]
    places = ([] if on_gpu is None else [(on_gpu, 0)]) + places
    for predictor, threads in places:
        for name in (way for way in settings.ways if way in PYTORCH_WAYS):
            captured = name.startswith("captured")
            if captured and predictor is on_cpu and on_gpu is not None:
                continue
            try:
                torch.set_num_threads(max(threads, 1))
                run = runtime.pytorch(
                    predictor,
                    compiled=name.endswith("compiled"),
                    captured=sizes if captured else (),
                )
            except MedscaleError as error:
                missing[name] = str(error)
                continue
            form = runtime.form_of(predictor)
            yield Way(name, predictor.device.type, form, threads, run)


def _exported_ways(
    on_gpu: Predictor | None, stem: Path, settings: Latency, missing: dict[str, str]
) -> Iterator[Way]:
    """Yield the available ways to run exported files.

    ``missing`` receives the reason for each device that is not available.
    """
    for device in settings.devices:
        if (reason := runtime.absent(device)) is not None:
            missing[device] = reason
            continue
        form = "fp32" if device == "cpu" or on_gpu is None else runtime.form_of(on_gpu)
        for threads in _threads(settings) if device == "cpu" else [0]:
            for name in (way for way in settings.ways if way not in PYTORCH_WAYS):
                file = stem.with_name(f"{stem.name}.{name}.onnx")
                if not file.is_file():
                    raise MedscaleError(
                        f"{file} does not exist; add {name} to benchmarks.export.formats"
                    )
                run = runtime.onnx(file, device, threads, tf32=form == "tf32")
                # TensorRT may choose fp16 for each layer (``runtime.onnx``).
                number_format = (
                    {"tensorrt": "fp16"}.get(device, form) if name == ONNX.name else name
                )
                yield Way(name, device, number_format, threads, run)


def _latency(way: Way, images: Images, calls: int) -> dict[str, Any]:
    """Time calls with one image each."""
    seconds = []
    for call in range(-WARM_UP, calls):
        image_slice = slice(call % len(images.pixels), call % len(images.pixels) + 1)
        start = perf_counter()
        way.run(
            images.pixels[image_slice],
            None if images.features is None else images.features[image_slice],
        )
        seconds.append(perf_counter() - start)
    seconds = seconds[WARM_UP:]
    row = {"kind": "latency", "batch": 1, "images": calls, "seconds": sum(seconds)}
    return row | {f"p{p}_ms": 1000 * float(np.percentile(seconds, p)) for p in PERCENTILES}


def _throughput(way: Way, images: Images, batch: int) -> dict[str, Any]:
    """Time one pass over the images; they are repeated if there are fewer than a batch."""
    count = max(len(images.pixels), batch)
    pixels, features = np.resize(images.pixels, (count, *images.pixels.shape[1:])), images.features
    if features is not None:
        features = np.resize(features, (count, features.shape[1]))
    seconds = time_pass(way.run, pixels, features, batch)
    return {"kind": "throughput", "batch": batch, "images": count, "seconds": seconds}


def _decode(predictor: Predictor, threads: int, files: list[Path]) -> dict[str, Any]:
    """Time reading, decoding and preprocessing alone."""
    with _decoders(threads) as pool:
        start = perf_counter()
        list(pool.map(predictor.prepare, files))
        seconds = perf_counter() - start
    return {"kind": "decode", "batch": 1, "images": len(files), "seconds": seconds}


def _decode_and_run(predictor: Predictor, way: Way, images: Images, batch: int) -> dict[str, Any]:
    """Time decoding and inference, from raw files to probabilities."""
    files, features = images.files, images.features
    # On a CPU no batch is decoded ahead: decoding and inference would exceed its threads.
    ahead = batch * (way.device != "cpu")
    with _decoders(way.threads or len(cores())) as pool:
        start = perf_counter()
        pending = [pool.submit(predictor.prepare, file) for file in files[:ahead]]
        for offset in range(0, len(files), batch):
            next_files = files[offset + len(pending) : offset + batch + ahead]
            pending += [pool.submit(predictor.prepare, file) for file in next_files]
            pixels = np.stack([future.result()[0].pixels for future in pending[:batch]])
            pending = pending[batch:]
            way.run(pixels, None if features is None else features[offset : offset + batch])
        seconds = perf_counter() - start
    return {"kind": "decoded", "batch": batch, "images": len(files), "seconds": seconds}


@contextmanager
def _decoders(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield threads that each decode whole images; OpenCV starts no threads meanwhile."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)


def _threads(settings: Latency) -> list[int]:
    """Return the numbers of threads; a setting of 0 means all cores of this process."""
    return sorted({threads or len(cores()) for threads in settings.threads})


def _files(index: Path, raw: Path, limit: int) -> list[Path]:
    """Return at most ``limit`` raw test images, spread evenly, after reading each once."""
    table = read_index(index)
    test = table.loc[table["split"] == "test", "path"]
    if test.empty:
        raise MedscaleError(f"{index}: no image is in the test split, so no inference can be timed")
    files = [raw / path for path in spread(test.to_numpy(), limit)]
    warm(files)
    return files


def _read_images(predictor: Predictor, files: list[Path]) -> Images:
    pixels = np.stack([predictor.prepare(file)[0].pixels for file in files])
    return Images(files, pixels, predictor.features([{}] * len(files)))
