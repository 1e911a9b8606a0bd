"""Speedup, efficiency and throughput of a study's benchmarks, from their repetitions.

Each function takes the rows of one benchmark: the result of its module in ``medscale.measure``.
"""

from typing import Any

import numpy as np
import pandas as pd

from medscale.measure.scaling.speedup import relative, with_suffixes

ALL = "all"  # name of the rows that sum up all splits
EAGER = "eager"  # the way of inference that is the base of comparisons
# Columns of inference.csv with equal values in the repetitions of a measurement.
INFERENCE_KEYS = ["run", "way", "device", "format", "threads", "kind", "batch"]
LATENCIES = ("p50_ms", "p95_ms", "p99_ms")


def by_workers(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute time, speedup and efficiency of preprocessing by split and number of workers.

    Speedup is the mean seconds on one worker divided by those on several. Efficiency is speedup
    divided by workers. Neither includes the start of the workers.

    Args:
        rows: result of ``enhance.measure_enhance``.

    Returns:
        One row for each split and number of workers, and for ``ALL`` splits together: ``split,
        workers, oversubscribed, images, tasks, repeats``; ``seconds`` with ``seconds_low,
        seconds_high`` (range over repetitions); ``images_per_second, startup_s, peak_memory_mb``;
        ``speedup`` and ``efficiency`` with the suffixes of ``speedup.ratio``, NaN without times on
        one worker.
    """
    keys = ["repeat", "workers", "oversubscribed"]
    sums = dict.fromkeys(("images", "tasks", "seconds"), "sum")
    kinds = {**sums, "startup_s": "first", "peak_memory_mb": "max"}
    all_splits = rows.groupby(keys, as_index=False).agg(kinds).assign(split=ALL)
    table = []
    for split, part in pd.concat([rows, all_splits]).groupby("split", sort=False):
        single = part.loc[part["workers"] == 1, "seconds"].tolist()
        for workers, group in part.groupby("workers"):
            seconds, first = group["seconds"].tolist(), group.iloc[0]
            speedup = relative(single, seconds, is_base=workers == 1)
            table.append(
                {
                    "split": split,
                    "workers": workers,
                    **{key: first[key] for key in ("oversubscribed", "images", "tasks")},
                    "repeats": len(group),
                    **_spread("seconds", group["seconds"]),
                    "images_per_second": first["images"] / np.mean(seconds),
                    "startup_s": group["startup_s"].mean(),
                    "peak_memory_mb": group["peak_memory_mb"].max(),
                    **with_suffixes("speedup", speedup),
                    **with_suffixes("efficiency", speedup, float(str(workers))),
                }
            )
    return pd.DataFrame(table)


def by_way(rows: pd.DataFrame, alone: str) -> pd.DataFrame:
    """Compute the throughput of each way of loading by number of processes.

    Args:
        rows: result of ``loading.measure_loading``.
        alone: the way on one process that is the base of ``gain``.

    Returns:
        One row for each way and number of processes: ``way, processes, oversubscribed, images,
        repeats``; ``images_per_second`` and ``wait_ms`` (mean wait of a process for a batch), each
        with ``_low, _high`` (range over repetitions); ``images_per_second_core``, for each core in
        use; ``startup_s``; and ``gain`` over ``alone`` with the suffixes of ``speedup.ratio``. The
        intervals are adjusted for the number of rows, since the largest gain is read.
    """
    rows = rows.assign(per_image=rows["seconds"] / rows["images"])
    base = rows.loc[rows["way"] == alone, "per_image"].tolist()
    table: list[dict[str, Any]] = []
    comparisons = rows[rows["way"] != alone].groupby(["way", "processes"]).ngroups
    for (way, processes), group in rows.groupby(["way", "processes"], sort=False):
        times = group["per_image"].tolist()
        gain = relative(base, times, is_base=way == alone, comparisons=comparisons)
        rate = _rate(group)
        table.append(
            {
                "way": way,
                "processes": processes,
                **{key: group[key].iloc[0] for key in ("oversubscribed", "images")},
                "repeats": len(group),
                **rate,
                "images_per_second_core": rate["images_per_second"] / group["cores"].iloc[0],
                **_spread("wait_ms", 1000 * group["wait_s"]),
                "startup_s": group["startup_s"].mean(),
                **with_suffixes("gain", gain),
            }
        )
    ways = list(dict.fromkeys([alone, *rows.sort_values("repeat", kind="stable")["way"]]))
    return (
        pd.DataFrame(table)
        .assign(order=lambda t: t["way"].map(ways.index))
        .sort_values(["order", "processes"], ignore_index=True)
        .drop(columns="order")
    )


def by_format(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute size, throughput and accuracy of each export, and its gain over eager PyTorch.

    Args:
        rows: result of ``exporting.measure_export``.

    Returns:
        One row for each run, format and device: ``images, bytes, accuracy, difference, low, high,
        largest, changed, repeats``; ``images_per_second`` with ``_low, _high`` (range over
        repetitions); and ``gain`` with the suffixes of ``speedup.ratio``.
    """
    columns = ("images", "bytes", "accuracy", "difference", "low", "high", "largest", "changed")
    table = []
    for (run, name, device), group in rows.groupby(["run", "format", "device"], sort=False):
        base = rows.loc[(rows["run"] == run) & (rows["format"] == EAGER), "seconds"].tolist()
        gain = relative(base, group["seconds"].tolist(), is_base=name == EAGER)
        table.append(
            {
                "run": run,
                "format": name,
                "device": device,
                **{key: group[key].iloc[0] for key in columns},
                "repeats": len(group),
                **_rate(group),
                **with_suffixes("gain", gain),
            }
        )
    return pd.DataFrame(table)


def by_number_format(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute speed and accuracy of a training by number format, with its gains.

    Args:
        rows: result of ``formats.measure_formats``.

    Returns:
        One row for each format: ``run, format, hardware, devices, global_batch, epochs, images,
        replicates``; ``images_per_second`` with ``_low, _high`` (range over seeds); ``over_fp32``
        and ``over_tf32``, the gains in speed over these formats, with the suffixes of
        ``speedup.ratio`` (NaN if that format was not measured); ``device_mb``; ``millijoules``,
        the energy of the whole training for each of its images (NaN if the device does not report
        it); and ``accuracy, balanced_accuracy, auroc`` (means over seeds) with ``_low, _high``
        (range).
    """
    columns = ("run", "format", "hardware", "devices", "global_batch", "epochs", "images")
    times = {name: part["seconds"].tolist() for name, part in rows.groupby("format")}
    table = []
    for name, group in rows.groupby("format", sort=False):
        joules = group["joules"] / (group["images"] * group["epochs"])
        row = {
            **{column: group[column].iloc[0] for column in columns},
            "replicates": len(group),
            **_rate(group),
            "device_mb": group["device_mb"].max(),
            "millijoules": 1000 * joules.mean(),
        }
        for base in ("fp32", "tf32"):
            gain = relative(times.get(base, []), times[name], is_base=name == base)
            row |= with_suffixes(f"over_{base}", gain)
        for score in ("accuracy", "balanced_accuracy", "auroc"):
            row |= _spread(score, group[score])
        table.append(row)
    return pd.DataFrame(table)


def by_inference(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute latency and throughput of each way of inference, and its gain over eager PyTorch.

    Args:
        rows: result of ``inference.measure_inference``.

    Returns:
        One row for each run, way, device, format, threads, kind and batch: ``images, repeats``;
        ``images_per_second`` and ``LATENCIES`` (means over repetitions; NaN unless the kind is
        latency), each with ``_low, _high`` (range); and ``gain`` in the time of an image over
        eager PyTorch, with the suffixes of ``speedup.ratio``. Eager PyTorch has as many CPU
        threads. Ways on a GPU are compared with eager PyTorch on the GPU or, if that was not
        measured, on the largest number of threads.
    """
    eager, table = rows[rows["way"] == EAGER], []
    for values, group in rows.groupby(INFERENCE_KEYS, sort=False):
        key = dict(zip(INFERENCE_KEYS, values, strict=True))
        on_gpu = not key["threads"] and (eager["threads"] == 0).any()
        threads = 0 if on_gpu else key["threads"] or eager["threads"].max()
        base = eager[(eager["run"] == key["run"]) & (eager["threads"] == threads)]
        base = base[(base["kind"] == key["kind"]) & (base["batch"] == key["batch"])]
        base_times, times = ((part["seconds"] / part["images"]).tolist() for part in (base, group))
        row = {**key, "images": group["images"].iloc[0], "repeats": len(group), **_rate(group)}
        for name in LATENCIES:
            row |= _spread(name, group[name])
        table.append(
            row | with_suffixes("gain", relative(base_times, times, is_base=key["way"] == EAGER))
        )
    return pd.DataFrame(table)


def _rate(rows: pd.DataFrame) -> dict[str, float]:
    """Return the images per second and their range.

    The rate is the inverse of the mean time of an image, so that the ratio of two rates is the
    ratio of their times.
    """
    rates = rows["images"] / rows["seconds"]
    ends = {"images_per_second_low": rates.min(), "images_per_second_high": rates.max()}
    return {"images_per_second": 1 / (1 / rates).mean(), **ends}


def _spread(name: str, values: pd.Series) -> dict[str, float]:
    return {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
