"""What others published (reported.yaml), beside the same runs of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from medscale.base.errors import MedscaleError
from medscale.engine.run import RunSpec
from medscale.measure.scaling import Point, gather, point_of, speedups
from medscale.report.names import SPLITS_IN_WORDS
from medscale.report.result.reading import Result, records

NOT_MEASURED = ("hardware", "epochs", "runs", "batch_held")
ELSEWHERE = (
    "loader_speedup",
    "inference_images_per_second",
)  # beside ours in the tables of loading and of inference
COLUMNS = ["item", "quantity", "unit", "reported", "reported_high", "meant", "run", "ours"]
FIVE = "5 epochs, ours 5 times one"
TIMES = ("whole training", "time an epoch", FIVE)
SECONDS = {"min": 60.0, "s": 1.0}
NAN = float("nan")
ALONE = (NAN, "")  # speedup of a run in no series, and what it counts from
UNITS = {
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
}


def read_reported(path: str | Path, study: str) -> dict[str, Any]:
    """A study's published figures; empty when none were published.

    Raises:
        MedscaleError: when the file is missing or not YAML.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise MedscaleError(f"{path} cannot be read: {error}") from None
    return dict((tree or {}).get(study) or {})


def compare(reported: dict[str, Any], results: Sequence[Result]) -> pd.DataFrame:
    """Every published figure a row, with ours of the same run where it was made; but for those ``ELSEWHERE``.

    Returns:
        ``item`` (where it stands in reported.yaml), ``quantity, unit, reported, reported_high`` (NaN but for ranges),
        ``meant`` (the run that it names, empty if none), ``run`` (that run, or what we made in its place), ``ours`` (in
        the same unit; NaN where it was not measured), and for times ``speedup_reported, speedup_ours``: those of the
        scaling analysis, ours of an epoch, with ``against``, the run on one device that they count from.
    """
    summaries = [result.summary for result in results]
    by_name = {result.name: result for result in results}
    measured, theirs = _in_series([point_of(one) for one in summaries]), _in_series(times(reported))
    gains = {row["run"]: row["amp_gain"] for row in records(speedups(summaries))}
    rows, ratios = [], []
    for path, low, high in _measured(reported):
        if path[0] in ELSEWHERE:
            continue
        (quantity, unit), found = _unit(path), _said(reported.get("runs", {}), path) or _runs(path)
        meant = found[0] if found else ""
        run = next((name for name in found if name in by_name), meant)
        further = {
            "speedup": measured.get(run, ALONE)[0],
            "amp_gain_1gpu_percent": 100 * (gains.get(run, NAN) - 1),
        }
        ours = further.get(
            _key(path), _ours(by_name[run], _key(path), path[-1]) if run in by_name else NAN
        )
        rows.append((" / ".join(path), quantity, unit, low, high, meant, run, ours))
        said, made = (
            (theirs.get(meant, ALONE), measured.get(run, ALONE))
            if quantity in TIMES
            else (ALONE, ALONE)
        )
        ratios.append((said[0], made[0], said[1] or made[1]))
    speeds = pd.DataFrame(ratios, columns=["speedup_reported", "speedup_ours", "against"])
    return pd.DataFrame(rows, columns=COLUMNS).join(speeds)


def times(reported: dict[str, Any]) -> list[Point]:
    """Published times of runs that have a name here, in seconds; both ends of a range count as a measurement each."""
    points = []
    for path, low, high in _measured(reported):
        quantity, unit = _unit(path)
        names = _said(reported.get("runs", {}), path) or _runs(path)
        if quantity in TIMES and names:
            seconds = tuple(SECONDS[unit] * value for value in (low, high) if value == value)
            points.append(
                Point(names[0], seconds, work=quantity, held=reported.get("batch_held", ""))
            )
    return points


def in_words(item: str) -> str:
    """A place in reported.yaml as a table says it, without what the column of quantities says: "serial P100"."""
    parts = [part for part in item.split(" / ") if part not in UNITS]
    words = [
        f"{part} device{'s' * (part != '1')}" if part.isdigit() else part.replace("_", " ")
        for part in parts
    ]
    return re.sub(r"\b([a-z]{1,2}\d+|amp)\b", lambda name: name[0].upper(), ", ".join(words))


def _in_series(points: Sequence[Point]) -> dict[str, tuple[float, str]]:
    """Speedup of each run on several devices that stands in a series, and the run on one that it counts from."""
    rows = [
        (row, one.points[0].run) for one in gather(points) for row in records(one.table().iloc[1:])
    ]
    return {row["run"]: (row["speedup"], single) for row, single in rows}


def _measured(reported: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], float, float]]:
    """Places of the published figures with their value, or the ends of their range."""
    return _leaves({key: value for key, value in reported.items() if key not in NOT_MEASURED})


def _key(path: tuple[str, ...]) -> str:
    return next((part for part in reversed(path) if part in UNITS), path[0])


def _unit(path: tuple[str, ...]) -> tuple[str, str]:
    """Quantity and unit of a place; the quantity says the split, where the place does."""
    quantity, unit = UNITS.get(_key(path), (_key(path).replace("_", " "), ""))
    return (
        f"{quantity}, {SPLITS_IN_WORDS[path[-1]]}" if path[-1] in SPLITS_IN_WORDS else quantity
    ), unit


def _leaves(
    tree: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float, float]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(tree, list):
        yield path, float(min(tree)), float(max(tree))
    else:
        yield path, float(tree), float("nan")


def _said(runs: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Runs that the file itself names for a place or what is above it; {} is the place's last part."""
    for length in range(len(path), 0, -1):
        named = runs.get(" / ".join(path[:length]))
        if named is not None:
            return [
                name.replace("{}", path[-1])
                for name in ([named] if isinstance(named, str) else named)
            ]
    return []


def _runs(path: tuple[str, ...]) -> list[str]:
    """Names of runs that a place in reported.yaml may mean, the likeliest first."""
    found = []
    for part, number in zip(path, (*path[1:], ""), strict=True):
        if (family := re.fullmatch(r"(.+)_(cpu|gpu)", part)) and number.isdigit():
            found.append(f"{family[1]}_{number}{family[2]}")
            found += (
                [f"serial{family[1].removeprefix('ddp')}_1{family[2]}"] if number == "1" else []
            )
        elif part == "batch_size_study":
            found += [f"serial_1gpu_bs{number}", *(["serial_1gpu"] if number == "32" else [])]
        elif family and not number.isdigit():
            found.append(f"{family[1]}_1{family[2]}")
        else:
            found.append(part)
    return [name for name in found if _is_run(name)]


def _is_run(name: str) -> bool:
    try:
        RunSpec.parse(name)
    except MedscaleError:
        return False
    return True


def _ours(result: Result, key: str, split: str) -> float:
    timing, metrics = result.summary["timing"], result.summary["metrics"]
    test = metrics["test"]
    if split == "train":  # predictions are made of validation and test images alone
        return NAN
    device = timing["peak_memory_mb"]["device"]
    values = {
        "minutes": timing["wall_seconds"]["mean"] / 60,
        "seconds": timing["wall_seconds"]["mean"],
        "epoch_seconds": timing["seconds_per_epoch"]["mean"],
        "epoch_minutes": timing["seconds_per_epoch"]["mean"] / 60,
        "seconds_5_epochs": 5 * timing["seconds_per_epoch"]["mean"],
        "images_per_second_4gpu": timing["images_per_second"]["mean"],
        "train_memory_mb": NAN if device is None else device["mean"],
        "accuracy": 100 * metrics.get(split, test)["accuracy"]["mean"],
        "f1_macro": 100 * test["f1_macro"]["mean"],
    }
    if "auroc_micro" in test and test["auroc_micro"]["mean"] is not None:
        values["auc_micro"] = test["auroc_micro"]["mean"]
    return float(values.get(key, NAN))
