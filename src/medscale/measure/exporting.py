"""Exports of trained runs, each held against the network that it was made of: size, images a second, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.config.sections import Export
from medscale.data import metadata
from medscale.data.shards import Shards
from medscale.evaluate import bootstrap
from medscale.measure.record import in_turns
from medscale.serve import export, runtime
from medscale.serve.predict import Predictor, load
from medscale.serve.runtime import Run

FORMATS = {
    "eager": ("PyTorch, eager", "the trained network in PyTorch, 32 bit"),
    "onnx": ("ONNX, 32 bit", "exported to ONNX, run by ONNX Runtime"),
    "fp16": ("ONNX, 16 bit", "the same with weights and computations in 16 bit"),
    "int8": (
        "ONNX, INT8",
        "the same, quantized statically to 8 bits, calibrated on validation images",
    ),
}
TOLERANCE = 1e-3  # by which probabilities of a 32-bit export may differ from PyTorch's
RESAMPLES, SEED = 1000, 20170
COLUMNS = ["run", "format", "device", "repeat", "images", "seconds", "bytes"]
COLUMNS += ["accuracy", "difference", "low", "high", "largest", "changed"]


def measure_export(
    results: Sequence[Path], shards: Path, settings: Export, out: Path
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Export each result's chosen replicate in each format, and hold it against PyTorch on the test images.

    INT8 is calibrated on validation images. Images are those of the shards: decoding is in none of the times, copies
    to and from a GPU are in all of them.

    Args:
        results: result folders of classifications.
        shards: the images that they were trained on.
        settings: which formats and devices, and how many images.
        out: folder of the files ``<run>.<format>.onnx``.

    Returns:
        A row a repetition with the columns ``COLUMNS``: ``accuracy`` in percent, its ``difference`` from eager PyTorch
        in points with the ends of the paired 95 % bootstrap interval over patients, ``largest`` difference of a
        probability, and images ``changed`` to another class; and, by device that was asked for and is not here, why.

    Raises:
        MedscaleError: when an export in 32 bit does not say what PyTorch says, or an input is missing.
    """
    opened, rows = Shards.open(shards), []
    missing: dict[str, str] = {
        one: why for one in settings.devices if (why := runtime.absent(one)) is not None
    }
    devices = [one for one in settings.devices if one not in missing]
    for result in results:
        predictor = load(result, device="cpu")
        test, chosen = (
            _images(opened, "test", settings.images),
            _images(opened, "val", settings.calibration),
        )
        files = write(predictor, opened, chosen, settings.formats, out / result.name)
        pixels, features = opened.gather(test), _features(predictor, opened, test)
        ways = {("eager", "cpu"): runtime.eager(predictor)}
        ways |= {
            (name, on): runtime.onnx(file, on) for on in devices for name, file in files.items()
        }
        said = {
            way: runtime.in_batches(run, pixels, features, settings.batch_size)
            for way, run in ways.items()
        }
        facts = _compare(
            said, opened.labels[test], opened.rows["group"].to_numpy()[test], result.name
        )
        size = {"eager": (result / predictor.weights[0].file).stat().st_size}
        size |= {name: file.stat().st_size for name, file in files.items()}
        for repeat in range(settings.repeats):
            for way in in_turns(list(ways), repeat):
                seconds = _timed(ways[way], pixels, features, settings.batch_size)
                where = {"run": result.name, "format": way[0], "device": way[1], "repeat": repeat}
                rows.append(
                    where
                    | {"images": len(test), "seconds": seconds, "bytes": size[way[0]]}
                    | facts[way]
                )
    return pd.DataFrame(rows, columns=COLUMNS), missing


def write(
    predictor: Predictor,
    shards: Shards,
    calibration: np.ndarray,
    formats: Sequence[str],
    stem: Path,
) -> dict[str, Path]:
    """Write ``<stem>.<format>.onnx`` of each format; the positions ``calibration`` are the images that INT8 sees."""
    files = {name: stem.with_name(f"{stem.name}.{name}.onnx") for name in ("onnx", *formats)}
    export.to_onnx(predictor, files["onnx"])
    if "fp16" in files:
        export.to_half(files["onnx"], files["fp16"])
    if "int8" in files:
        features = _features(predictor, shards, calibration)
        inputs = {export.PIXELS: shards.gather(calibration)}
        export.to_int8(
            files["onnx"],
            files["int8"],
            inputs | ({} if features is None else {export.FEATURES: features}),
        )
    sizes = (f"{name} {file.stat().st_size / 1e6:.1f} MB" for name, file in files.items())
    log.info("%s: %s", stem.name, ", ".join(sizes))
    return files


def paired(ours: np.ndarray, theirs: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Difference of two accuracies on the same images, in points, with its paired interval over groups.

    Args:
        ours, theirs: which images each classifies correctly, bool, shape N.
        groups: patient of each image, shape N.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    drawn = bootstrap.draw(int(codes.max()) + 1, RESAMPLES, SEED)
    gain = np.bincount(codes, ours.astype(float) - theirs.astype(float))
    resampled = 100 * (drawn @ gain) / (drawn @ np.bincount(codes))
    return 100 * float(ours.mean() - theirs.mean()), *bootstrap.interval(resampled)


def _compare(
    said: dict[tuple[str, str], np.ndarray], labels: np.ndarray, groups: np.ndarray, run: str
) -> dict[tuple[str, str], dict[str, float]]:
    """Accuracy of each way, and how it differs from eager PyTorch."""
    reference, facts = said["eager", "cpu"], {}
    right = reference.argmax(1) == labels
    for way, probabilities in said.items():
        largest = float(np.abs(probabilities - reference).max())
        if way[0] == "onnx" and way[1] == "cpu" and not largest <= TOLERANCE:
            raise MedscaleError(
                f"{run}: probabilities of the ONNX file differ from PyTorch's by up to {largest:.3g}"
            )
        ours = probabilities.argmax(1) == labels
        difference, low, high = paired(ours, right, groups)
        facts[way] = {
            "accuracy": 100 * float(ours.mean()),
            **{"difference": difference, "low": low, "high": high, "largest": largest},
            "changed": int((probabilities.argmax(1) != reference.argmax(1)).sum()),
        }
    return facts


def _timed(run: Run, pixels: np.ndarray, features: np.ndarray | None, batch: int) -> float:
    """Seconds for all images, ``batch`` at a time, after one batch that warms up."""
    run(pixels[:batch], None if features is None else features[:batch])
    start = perf_counter()
    runtime.in_batches(run, pixels, features, batch)
    return perf_counter() - start


def _images(shards: Shards, split: str, most: int) -> np.ndarray:
    """At most so many positions of a split, evenly spread.

    Raises:
        MedscaleError: when the split has no images.
    """
    positions = shards.positions(split)
    if not len(positions):
        raise MedscaleError(
            f"{shards.folder}: the split {split!r} has no images, which an export needs"
        )
    return positions[
        np.unique(np.linspace(0, len(positions) - 1, min(most, len(positions))).round().astype(int))
    ]


def _features(predictor: Predictor, shards: Shards, positions: np.ndarray) -> np.ndarray | None:
    return metadata.apply(predictor.inference.metadata, shards.rows.iloc[positions])
