"""What others published (reported.yaml), beside the same runs of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from medscale.errors import MedscaleError
from medscale.report.results import Result
from medscale.scaling import Point
from medscale.study import RunSpec

NOT_MEASURED = ("hardware", "epochs", "runs", "batch_held")
COLUMNS = ["item", "quantity", "unit", "reported", "reported_high", "run", "ours"]
TIMES = ("training time", "time an epoch", "time of 5 epochs")
SECONDS = {"min": 60.0, "s": 1.0}
UNITS = {
    "minutes": ("training time", "min"),
    "seconds": ("training time", "s"),
    "epoch_seconds": ("time an epoch", "s"),
    "epoch_minutes": ("time an epoch", "min"),
    "seconds_5_epochs": ("time of 5 epochs", "s"),
    "images_per_second_4gpu": ("throughput", "images/s"),
    "train_memory_mb": ("training memory of a device", "MB"),
    "accuracy": ("accuracy", "%"),
    "f1_macro": ("F1 (macro)", "%"),
    "auc_micro": ("AUROC (micro)", ""),
    "speedup": ("speedup", ""),
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
    """Every published figure a row, with ours of the same run where it was made.

    Returns:
        ``item`` (where it stands in reported.yaml), ``quantity, unit, reported, reported_high`` (NaN but for ranges),
        ``run`` (that it names, empty if none), ``ours`` (in the same unit; NaN where it was not measured), and for
        times over numbers of devices ``speedup_reported, speedup_ours``: that on one device divided by this one.
    """
    by_name = {result.name: result for result in results}
    said = reported.get("runs", {})
    rows = []
    for path, low, high in _measured(reported):
        key, (quantity, unit) = _key(path), _unit(path)
        meant = _said(said, path) or _runs(path)
        run = next((name for name in meant if name in by_name), meant[0] if meant else "")
        ours = _ours(by_name[run], key, path[-1]) if run in by_name else float("nan")
        rows.append((" / ".join(path), quantity, unit, low, high, run, ours))
    return _with_speedups(pd.DataFrame(rows, columns=COLUMNS))


def times(reported: dict[str, Any]) -> list[Point]:
    """Published times of runs that have a name here, in seconds; both ends of a range count as a measurement each."""
    points = []
    for path, low, high in _measured(reported):
        quantity, unit = _unit(path)
        names = _said(reported.get("runs", {}), path) or _runs(path)
        if quantity in TIMES and names:
            seconds = tuple(SECONDS[unit] * value for value in (low, high) if value == value)
            points.append(Point(names[0], seconds, work=quantity, held=reported.get("batch_held", "")))
    return points


def in_words(item: str) -> str:
    """A place in reported.yaml as a table says it, without what the column of quantities says: "serial p100"."""
    parts = [part for part in item.split(" / ") if part not in UNITS]
    words = [f"{part} device{'s' * (part != '1')}" if part.isdigit() else part.replace("_", " ") for part in parts]
    return ", ".join(words) or item.replace("_", " ")


def _with_speedups(table: pd.DataFrame) -> pd.DataFrame:
    """Add the times' ratios within each series over numbers of devices; none for ranges."""
    times = table[table["quantity"].isin(TIMES) & table["reported_high"].isna()].set_index("item")
    for column in ("reported", "ours"):
        ratios = []
        for item in table["item"]:
            series, _, devices = item.rpartition(" / ")
            single = f"{series} / 1"
            there = single in times.index and item in times.index and devices.isdigit()
            ratios.append(times[column][single] / times[column][item] if there else float("nan"))
        table[f"speedup_{column}"] = pd.Series(ratios, table.index, dtype=float)
    return table


def _measured(reported: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], float, float]]:
    """Places of the published figures with their value, or the ends of their range."""
    return _leaves({key: value for key, value in reported.items() if key not in NOT_MEASURED})


def _key(path: tuple[str, ...]) -> str:
    return next((part for part in reversed(path) if part in UNITS), path[0])


def _unit(path: tuple[str, ...]) -> tuple[str, str]:
    """Quantity and unit of a place."""
    return UNITS.get(_key(path), (_key(path).replace("_", " "), ""))


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float, float]]:
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
            return [name.replace("{}", path[-1]) for name in ([named] if isinstance(named, str) else named)]
    return []


def _runs(path: tuple[str, ...]) -> list[str]:
    """Names of runs that a place in reported.yaml may mean, the likeliest first."""
    found = []
    for part, number in zip(path, (*path[1:], ""), strict=True):
        if (family := re.fullmatch(r"(.+)_(cpu|gpu)", part)) and number.isdigit():
            found.append(f"{family[1]}_{number}{family[2]}")
            found += [f"serial{family[1].removeprefix('ddp')}_1{family[2]}"] if number == "1" else []
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
        return float("nan")
    device = timing["peak_memory_mb"]["device"]
    values = {
        "minutes": timing["wall_seconds"]["mean"] / 60,
        "seconds": timing["wall_seconds"]["mean"],
        "epoch_seconds": timing["seconds_per_epoch"]["mean"],
        "epoch_minutes": timing["seconds_per_epoch"]["mean"] / 60,
        "seconds_5_epochs": 5 * timing["seconds_per_epoch"]["mean"],
        "images_per_second_4gpu": timing["images_per_second"]["mean"],
        "train_memory_mb": float("nan") if device is None else device["mean"],
        "accuracy": 100 * metrics.get(split, test)["accuracy"]["mean"],
        "f1_macro": 100 * test["f1_macro"]["mean"],
    }
    if "auroc_micro" in test and test["auroc_micro"]["mean"] is not None:
        values["auc_micro"] = test["auroc_micro"]["mean"]
    return float(values.get(key, float("nan")))
