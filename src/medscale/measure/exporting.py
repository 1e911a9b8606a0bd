"""Exports of trained runs compared with PyTorch: file size, images per second, accuracy."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.log import log
from medscale.config.benchmarks import Export
from medscale.data import folds, metadata
from medscale.data.shards import Shards
from medscale.evaluate import bootstrap
from medscale.evaluate.assessment import RESAMPLES, SEED
from medscale.evaluate.paired import accuracy_change
from medscale.measure.record import in_turns, spread
from medscale.serve import export, runtime
from medscale.serve.formats.format import inputs_of
from medscale.serve.formats.registry import BENCHMARKED, ONNX, by_name
from medscale.serve.predict import Predictor, load
from medscale.serve.runtime import Run

WAYS = {"eager": ("PyTorch, eager", "the trained network in PyTorch, fp32")} | {
    name: (form.title, form.description) for name, form in BENCHMARKED.items()
}
COLUMNS = ["run", "format", "device", "repeat", "images", "seconds", "bytes"]
COLUMNS += ["accuracy", "difference", "low", "high", "largest", "changed"]

Way = tuple[str, str]  # a key of WAYS, and a device


def measure_export(
    results: Sequence[Path], shards: Path, settings: Export, out: Path
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Export the best replicate of each result in each format, and compare it with PyTorch.

    With folds, the network is that of the first fold, since the shards have its test images. The
    images are test images; formats are calibrated on validation images. Times include copies to and
    from a GPU, but no decoding.

    Args:
        results: result folders.
        shards: folder of the study's shards.
        settings: formats, devices, and numbers of images.
        out: folder of the files ``<run>.<format>.onnx``.

    Returns:
        One row for each repetition with the columns ``COLUMNS``: ``accuracy`` in percent; its
        ``difference`` from eager PyTorch in percentage points, with the paired 95 % bootstrap
        interval ``low, high`` over patients; the ``largest`` difference of a probability; and the
        number of images that ``changed`` to another class. Second, the reason for each device that
        is not available.

    Raises:
        MedscaleError: when the outputs of a file are not finite, or differ from PyTorch's by more
            than its format allows, or an input is missing.
    """
    shard_set, rows = Shards.open(shards), []
    reasons = {device: runtime.absent(device) for device in settings.devices}
    missing = {str(device): why for device, why in reasons.items() if why is not None}
    devices = [device for device in settings.devices if device not in missing]
    test, validation = (
        _positions(shard_set, split, limit)
        for split, limit in (("test", settings.images), ("val", settings.calibration))
    )
    # With folds, the networks of the other folds were trained on these test images.
    fold = 1 if folds.count(shard_set.rows) else None
    for result in results:
        predictor = load(result, device="cpu", fold=fold)
        files = write(predictor, shard_set, validation, settings.formats, out / result.name)
        runs: dict[Way, Run] = {("eager", "cpu"): runtime.pytorch(predictor)}
        for device in devices:
            runs |= {(name, device): runtime.onnx(file, device) for name, file in files.items()}
        sizes = {"eager": (result / predictor.weights[0].file).stat().st_size}
        sizes |= {name: file.stat().st_size for name, file in files.items()}
        for row in _measured(runs, predictor, shard_set, test, settings, result.name):
            rows.append({"run": result.name, "bytes": sizes[row["format"]]} | row)
    return pd.DataFrame(rows, columns=COLUMNS), missing


def _measured(
    runs: dict[Way, Run],
    predictor: Predictor,
    shards: Shards,
    test: np.ndarray,
    settings: Export,
    name: str,
) -> Iterator[dict[str, Any]]:
    """Compare the ways of running a network on test images; yield a row for each timed pass."""
    pixels, features = shards.gather(test), _features(predictor, shards, test)
    probabilities = {
        way: runtime.in_batches(run, pixels, features, settings.batch_size)
        for way, run in runs.items()
    }
    groups = shards.rows["group"].to_numpy()[test]
    facts = _compare(probabilities, shards.labels[test], groups, name)
    for repeat in range(settings.repeats):
        for way in in_turns(list(runs), repeat):
            seconds = time_pass(runs[way], pixels, features, settings.batch_size)
            columns = {"format": way[0], "device": way[1], "repeat": repeat}
            yield columns | {"images": len(test), "seconds": seconds} | facts[way]


def write(
    predictor: Predictor,
    shards: Shards,
    calibration: np.ndarray,
    formats: Sequence[str],
    stem: Path,
) -> dict[str, Path]:
    """Write ``<stem>.onnx.onnx`` and ``<stem>.<format>.onnx`` of each format.

    Args:
        predictor: the loaded run, on the CPU.
        shards: images of its study.
        calibration: positions in the shards of the images for calibration.
        formats: names of further formats; the one in 32 bit is always written.
        stem: folder and run, the beginning of the paths.

    Returns:
        The files by format.
    """
    files = {name: stem.with_name(f"{stem.name}.{name}.onnx") for name in (ONNX.name, *formats)}
    export.to_onnx(predictor, files[ONNX.name])
    for name in formats:
        form, inputs = by_name(name), None
        if form.calibrated:
            features = _features(predictor, shards, calibration)
            inputs = inputs_of(shards.gather(calibration), features)
        form.write(files[ONNX.name], files[name], inputs)
    sizes = (f"{name} {file.stat().st_size / 1e6:.1f} MB" for name, file in files.items())
    log.info("%s: %s", stem.name, ", ".join(sizes))
    return files


def accuracy_difference(
    is_correct: np.ndarray, is_correct_base: np.ndarray, groups: np.ndarray
) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same images, with its interval.

    Args:
        is_correct: images that the first network classifies correctly, bool, shape N.
        is_correct_base: the same of the second network.
        groups: patient of each image, shape N.

    Returns:
        The difference in percentage points, and the ends of its paired 95 % bootstrap interval over
        patients.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    draw_counts = bootstrap.draw(int(codes.max()) + 1, RESAMPLES, SEED)
    change = is_correct.astype(float) - is_correct_base.astype(float)
    return accuracy_change(change, codes, draw_counts)


def _compare(
    by_way: dict[Way, np.ndarray], labels: np.ndarray, groups: np.ndarray, run: str
) -> dict[Way, dict[str, float]]:
    """Return each way's accuracy, and its differences from eager PyTorch."""
    reference, facts = by_way["eager", "cpu"], {}
    correct = reference.argmax(1) == labels
    for (name, device), probabilities in by_way.items():
        largest = float(np.abs(probabilities - reference).max())
        if device == "cpu" and name != "eager":
            by_name(name).check(largest, f"{run}.{name}.onnx")
        elif device != "cpu" and not np.isfinite(largest):  # their class would be the first
            raise MedscaleError(
                f"outputs of {run}.{name}.onnx on {device} are not finite for some image; remove "
                f"{device} from benchmarks.export.devices"
            )
        classes = probabilities.argmax(1)
        difference = low = high = 0.0
        if probabilities is not reference:
            difference, low, high = accuracy_difference(classes == labels, correct, groups)
        facts[name, device] = {
            "accuracy": 100 * float((classes == labels).mean()),
            **{"difference": difference, "low": low, "high": high, "largest": largest},
            "changed": int((classes != reference.argmax(1)).sum()),
        }
    return facts


def time_pass(run: Run, pixels: np.ndarray, features: np.ndarray | None, batch: int) -> float:
    """Return the seconds for all images in batches, after one batch that warms up."""
    run(pixels[:batch], None if features is None else features[:batch])
    start = perf_counter()
    runtime.in_batches(run, pixels, features, batch)
    return perf_counter() - start


def _positions(shards: Shards, split: str, limit: int) -> np.ndarray:
    """Return at most ``limit`` positions of a split's images, spread evenly.

    Raises:
        MedscaleError: when the split has no images.
    """
    positions = shards.positions(split)
    if not len(positions):
        raise MedscaleError(
            f"{shards.folder}: the split {split!r} has no images, which an export needs"
        )
    return spread(positions, limit)


def _features(predictor: Predictor, shards: Shards, positions: np.ndarray) -> np.ndarray | None:
    return metadata.apply(predictor.inference.metadata, shards.rows.iloc[positions])
