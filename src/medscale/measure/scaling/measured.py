"""Speedup, efficiency and throughput of what a study measures besides its runs, from the repetitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from medscale.measure.scaling.speedup import ENDS, ratio

ALL = "all"  # the splits together
EAGER = "eager"  # the way of inference that others are compared with


def by_workers(rows: pd.DataFrame) -> pd.DataFrame:
    """Time, speedup and efficiency of preprocessing by split and number of workers.

    Speedup is the mean seconds on one worker divided by those on several, efficiency is speedup divided by workers; the
    start of the workers is in neither.

    Args:
        rows: repetitions, columns of ``medscale.measure.enhance``.

    Returns:
        A row a split and number of workers, and rows of ``ALL`` splits together: ``split, workers, oversubscribed,
        images, tasks, repeats, seconds, seconds_low, seconds_high`` (range), ``images_per_second, startup_s,
        peak_memory_mb, speedup, efficiency``, the last two with the ends of ``scaling.speedup.ratio``; NaN where no
        time on one worker was measured.
    """
    keys = ["repeat", "workers", "oversubscribed"]
    kinds = {
        "images": "sum",
        "tasks": "sum",
        "seconds": "sum",
        "startup_s": "first",
        "peak_memory_mb": "max",
    }
    together = rows.groupby(keys, as_index=False).agg(kinds).assign(split=ALL)
    found = []
    for split, part in pd.concat([rows, together]).groupby("split", sort=False):
        single = part.loc[part["workers"] == 1, "seconds"].tolist()
        for workers, here in part.groupby("workers"):
            seconds = here["seconds"].tolist()
            speedup = ratio(single, seconds) if single else dict.fromkeys(ENDS, math.nan)
            speedup = dict.fromkeys(ENDS, 1.0) if workers == 1 else speedup
            first = here.iloc[0]
            found.append(
                {
                    "split": split,
                    "workers": workers,
                    **{key: first[key] for key in ("oversubscribed", "images", "tasks")},
                    "repeats": len(here),
                    **_spread("seconds", here["seconds"]),
                    "images_per_second": first["images"] / np.mean(seconds),
                    "startup_s": here["startup_s"].mean(),
                    "peak_memory_mb": here["peak_memory_mb"].max(),
                    **{f"speedup{key}": value for key, value in speedup.items()},
                    **{
                        f"efficiency{key}": value / float(str(workers))
                        for key, value in speedup.items()
                    },
                }
            )
    return pd.DataFrame(found)


def by_way(rows: pd.DataFrame, alone: str) -> pd.DataFrame:
    """Throughput of each way of loading by number of processes, and how often it is that of the simple one.

    Args:
        rows: repetitions, columns of ``medscale.measure.loading``.
        alone: the way that the others are compared with, on one process.

    Returns:
        A row a way and number of processes: ``way, processes, oversubscribed, images, repeats, images_per_second`` and
        ``wait_ms`` (a batch of one process) with ``_low, _high`` (range), ``images_per_second_core`` (a core that is
        used), ``startup_s``, and ``gain`` with the ends of ``scaling.speedup.ratio``.
    """
    each = rows.assign(per_image=rows["seconds"] / rows["images"])
    base = each.loc[each["way"] == alone, "per_image"].tolist()
    found: list[dict[str, Any]] = []
    for (way, processes), here in each.groupby(["way", "processes"], sort=False):
        gain = ratio(base, here["per_image"].tolist())
        gain = dict.fromkeys(ENDS, 1.0) if way == alone else gain
        cores = here["cores"].iloc[0]
        found.append(
            {
                "way": way,
                "processes": processes,
                **{key: here[key].iloc[0] for key in ("oversubscribed", "images")},
                "repeats": len(here),
                **(rate := _rate(here)),
                "images_per_second_core": rate["images_per_second"] / cores,
                **_spread("wait_ms", 1000 * here["wait_s"]),
                "startup_s": here["startup_s"].mean(),
                **{f"gain{key}": value for key, value in gain.items()},
            }
        )
    ways = list(dict.fromkeys([alone, *rows.sort_values("repeat", kind="stable")["way"]]))
    table = pd.DataFrame(found)
    order = table["way"].map(ways.index)
    return (
        table.assign(order=order)
        .sort_values(["order", "processes"], ignore_index=True)
        .drop(columns="order")
    )


def by_format(rows: pd.DataFrame) -> pd.DataFrame:
    """Size, throughput and accuracy of each export, and its throughput against eager PyTorch.

    Args:
        rows: repetitions, columns of ``medscale.measure.exporting``.

    Returns:
        A row a run, format and device: ``images, bytes, accuracy, difference, low, high, largest, changed, repeats,
        images_per_second`` with ``_low, _high`` (range), and ``gain`` with the ends of ``scaling.speedup.ratio``.
    """
    found = []
    for (run, name, device), here in rows.groupby(["run", "format", "device"], sort=False):
        base = rows.loc[(rows["run"] == run) & (rows["format"] == EAGER), "seconds"].tolist()
        gain = dict.fromkeys(ENDS, 1.0) if name == EAGER else ratio(base, here["seconds"].tolist())
        keep = ("images", "bytes", "accuracy", "difference", "low", "high", "largest", "changed")
        found.append(
            {
                "run": run,
                "format": name,
                "device": device,
                **{key: here[key].iloc[0] for key in keep},
                "repeats": len(here),
                **_rate(here),
                **{f"gain{key}": value for key, value in gain.items()},
            }
        )
    return pd.DataFrame(found)


def by_inference(rows: pd.DataFrame) -> pd.DataFrame:
    """Latency and throughput of each way of running a network, and against eager PyTorch of as many threads.

    Args:
        rows: repetitions, columns of ``medscale.measure.inference``.

    Returns:
        A row a run, way, device, threads, kind and batch: ``images, repeats, images_per_second`` and ``p50_ms, p95_ms,
        p99_ms`` (mean of the repetitions; NaN but for latency), each with ``_low, _high`` (range), and ``gain`` with
        the ends of ``scaling.speedup.ratio``: of the time of an image; a GPU is compared with eager on most threads.
    """
    keys = ["run", "way", "device", "threads", "kind", "batch"]
    eager, found = rows[rows["way"] == EAGER], []
    for values, here in rows.groupby(keys, sort=False):
        at = dict(zip(keys, values, strict=True))
        threads = at["threads"] or eager["threads"].max()
        base = eager[(eager["run"] == at["run"]) & (eager["threads"] == threads)]
        base = base[(base["kind"] == at["kind"]) & (base["batch"] == at["batch"])]
        theirs, ours = ((part["seconds"] / part["images"]).tolist() for part in (base, here))
        gain = ratio(theirs, ours) if theirs else dict.fromkeys(ENDS, math.nan)
        gain = dict.fromkeys(ENDS, 1.0) if at["way"] == EAGER else gain
        latencies = [_spread(name, here[name]) for name in ("p50_ms", "p95_ms", "p99_ms")]
        found.append(
            {
                **at,
                "images": here["images"].iloc[0],
                "repeats": len(here),
                **_rate(here),
                **{key: value for latency in latencies for key, value in latency.items()},
                **{f"gain{key}": value for key, value in gain.items()},
            }
        )
    return pd.DataFrame(found)


def _rate(rows: pd.DataFrame) -> dict[str, float]:
    """Images a second by the mean time of an image, so that their ratio is that of the times; and their range."""
    each = rows["images"] / rows["seconds"]
    ends = {"images_per_second_low": each.min(), "images_per_second_high": each.max()}
    return {"images_per_second": 1 / (1 / each).mean(), **ends}


def _spread(name: str, values: pd.Series) -> dict[str, float]:
    return {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
