"""Published figures (reported.yaml), compared with the same runs here."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.text import amount
from medscale.config.yaml_file import read_yaml
from medscale.engine.run import RunSpec
from medscale.measure.scaling.series import Point, gather, point_of
from medscale.measure.scaling.speedup import speedups
from medscale.measure.scaling.target import whole_seconds
from medscale.report.names import SPLITS_IN_WORDS
from medscale.report.result.reading import Result, records

Place = tuple[str, ...]  # keys that lead to a figure in the file
NOT_MEASURED = ("hardware", "format", "epochs", "runs", "batch_held")
IN_BENCHMARKS = ("loader_speedup", "inference_images_per_second")  # compared in those tables
COLUMNS = [
    "item",
    "quantity",
    "unit",
    "reported",
    "reported_high",
    "meant",
    "run",
    "ours",
    "format",
]
FIVE = "time of 5 epochs (ours: 5 x one epoch)"
TIMES = ("whole training", "time an epoch", FIVE)
SECONDS = {"min": 60.0, "s": 1.0}
NAN = float("nan")
NO_SERIES = (NAN, "")  # speedup of a run in no series, and the run that it counts from
UNITS = {  # quantity and unit by key
    "minutes": ("whole training", "min"),
    "seconds": ("whole training", "s"),
    "epoch_seconds": ("time an epoch", "s"),
    "epoch_minutes": ("time an epoch", "min"),
    "seconds_5_epochs": (FIVE, "s"),
    "images_per_second_4gpu": ("throughput", "images/s"),
    "train_memory_mb": ("training memory of a device", "MB"),
    "accuracy": ("accuracy", "%"),
    "f1_macro": ("macro F1", "%"),
    "auc_micro": ("micro AUROC", ""),
    "speedup": ("speedup", ""),
    "amp_gain_1gpu_percent": ("gain of AMP in speed", "%"),
    "inference_memory_mb": ("memory of inference", "MB"),
    "gpu_use_percent": ("use of the GPUs", "%"),
    "confusions": ("confused images", "images"),
}


def read_reported(path: str | Path | list[str], study: str) -> dict[str, Any]:
    """Return a study's published figures; empty when none were published.

    Args:
        path: reported.yaml; an empty list for a person's own images (``sources.reported``).
        study: the study's name.

    Raises MedscaleError as ``read_yaml``.
    """
    if isinstance(path, list):
        return {}
    return dict(read_yaml(Path(path)).get(study) or {})


def compare(reported: dict[str, Any], results: Sequence[Result]) -> pd.DataFrame:
    """Compare each published figure with that of the same run here, if there is one.

    Returns:
        ``item`` (keys in reported.yaml), ``quantity, unit, reported, reported_high`` (NaN except
        for ranges), ``meant`` (the published run's name here, or empty), ``run`` (the run that is
        compared with it), ``ours`` (in the same unit; NaN where not measured), ``format`` (of
        our run; of a gain, also of the run that it is over), and for times
        ``speedup_reported`` and ``speedup_ours`` (of an epoch) with ``against``, the run on one
        device that they count from.
    """
    summaries = [result.summary for result in results]
    by_name = {result.name: result for result in results}
    measured = _in_series([point_of(summary) for summary in summaries])
    published_series = _in_series(times(reported))
    gains = {row["run"]: row for row in records(speedups(summaries))}
    rows = []
    for place, low, high in _figures(reported):
        if place[0] in IN_BENCHMARKS:
            continue
        quantity, unit = _quantity(place)
        names = _runs(reported, place)
        meant = names[0] if names else ""
        run = next((name for name in names if name in by_name), meant)
        key, form = _key(place), by_name[run].summary["format"] if run in by_name else ""
        if key == "speedup":
            value = measured.get(run, NO_SERIES)[0]
        elif key == "amp_gain_1gpu_percent":
            value = 100 * (gains[run]["amp_gain"] - 1) if run in gains else NAN
            form = " over ".join(filter(None, [form, gains.get(run, {}).get("amp_gain_over")]))
        else:
            value = _measured_value(by_name[run], key, place[-1]) if run in by_name else NAN
        timed = quantity in TIMES
        published = published_series.get(meant, NO_SERIES) if timed else NO_SERIES
        own = measured.get(run, NO_SERIES) if timed else NO_SERIES
        speeds = (published[0], own[0], published[1] or own[1])
        rows.append(
            (" / ".join(place), quantity, unit, low, high, meant, run, value, form, *speeds)
        )
    speed_columns = ["speedup_reported", "speedup_ours", "against"]
    return pd.DataFrame(rows, columns=[*COLUMNS, *speed_columns])


def times(reported: dict[str, Any]) -> list[Point]:
    """Return published times, in seconds, of runs that have a name here.

    Both ends of a range count as measurements.
    """
    points = []
    for place, low, high in _figures(reported):
        quantity, unit = _quantity(place)
        names = _runs(reported, place)
        if quantity in TIMES and names:
            seconds = tuple(SECONDS[unit] * value for value in (low, high) if value == value)
            constant_batch = reported.get("batch_held", "")
            points.append(Point(names[0], seconds, work=quantity, constant_batch=constant_batch))
    return points


def in_words(item: str) -> str:
    """Return an item in words, without the quantity, which has its column: "serial P100"."""
    parts = [part for part in item.split(" / ") if part not in UNITS]
    words = [
        amount(int(part), "device") if part.isdigit() else part.replace("_", " ") for part in parts
    ]
    return re.sub(r"\b([a-z]{1,2}\d+|amp)\b", lambda name: name[0].upper(), ", ".join(words))


def _in_series(points: Sequence[Point]) -> dict[str, tuple[float, str]]:
    """Return the speedup of each run in a series, and the run on one device it counts from."""
    return {
        row["run"]: (row["speedup"], series.points[0].run)
        for series in gather(points)
        for row in records(series.table().iloc[1:])
    }


def _figures(reported: dict[str, Any]) -> Iterator[tuple[Place, float, float]]:
    """Yield the place of each published figure with its value, or the ends of its range."""
    return _leaves({key: value for key, value in reported.items() if key not in NOT_MEASURED})


def _leaves(tree: Any, place: Place = ()) -> Iterator[tuple[Place, float, float]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*place, str(key)))
    elif isinstance(tree, list):
        yield place, float(min(tree)), float(max(tree))
    else:
        yield place, float(tree), NAN


def _key(place: Place) -> str:
    return next((part for part in reversed(place) if part in UNITS), place[0])


def _quantity(place: Place) -> tuple[str, str]:
    """Return quantity and unit; the quantity names the split where the place does."""
    key = _key(place)
    quantity, unit = UNITS.get(key, (key.replace("_", " "), ""))
    split = SPLITS_IN_WORDS.get(place[-1])
    return (f"{quantity}, {split}" if split else quantity), unit


def _runs(reported: dict[str, Any], place: Place) -> list[str]:
    """Return the names of the runs that a place may mean, the likeliest first.

    The file can name them itself, for a place or for the keys above it; ``{}`` in a name is the
    place's last part.
    """
    for length in range(len(place), 0, -1):
        entry = reported.get("runs", {}).get(" / ".join(place[:length]))
        if entry is not None:
            names = [entry] if isinstance(entry, str) else entry
            return [name.replace("{}", place[-1]) for name in names]
    return [name for name in _candidates(place) if RunSpec.is_name(name)]


def _candidates(place: Place) -> list[str]:
    names = []
    for part, count in zip(place, (*place[1:], ""), strict=True):
        family = re.fullmatch(r"(.+)_(cpu|gpu)", part)
        if family and count.isdigit():
            names.append(f"{family[1]}_{count}{family[2]}")
            if count == "1":
                names.append(f"serial{family[1].removeprefix('ddp')}_1{family[2]}")
        elif part == "batch_size_study":
            names += [f"serial_1gpu_bs{count}", *(["serial_1gpu"] if count == "32" else [])]
        elif family:
            names.append(f"{family[1]}_1{family[2]}")
        else:
            names.append(part)
    return names


def _measured_value(result: Result, key: str, split: str) -> float:
    timing, metrics = result.summary["timing"], result.summary["metrics"]
    if split == "train":  # there are predictions of validation and test images alone
        return NAN
    test, device = metrics["test"], timing["peak_memory_mb"]["device"]
    epoch, use = timing["seconds_per_epoch"]["mean"], timing.get("gpu_use_percent")
    values = {
        "minutes": whole_seconds(result.summary) / 60,
        "seconds": whole_seconds(result.summary),
        "epoch_seconds": epoch,
        "epoch_minutes": epoch / 60,
        "seconds_5_epochs": 5 * epoch,
        "images_per_second_4gpu": timing["images_per_second"]["mean"],
        "train_memory_mb": NAN if device is None else device["mean"],
        "gpu_use_percent": NAN if use is None else use["mean"],
        "accuracy": 100 * metrics.get(split, test)["accuracy"]["mean"],
        "f1_macro": 100 * test["f1_macro"]["mean"],
        "auc_micro": test.get("auroc_micro", {}).get("mean"),
    }
    value = values.get(key)
    return NAN if value is None else float(value)
