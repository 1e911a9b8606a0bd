"""Speedup, efficiency and throughput of what a study measures besides its runs, from the repetitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from medscale.scaling.speedup import ENDS, ratio

ALL = "all"  # the splits together


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
    kinds = {"images": "sum", "tasks": "sum", "seconds": "sum", "startup_s": "first", "peak_memory_mb": "max"}
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
                    **{f"efficiency{key}": value / float(str(workers)) for key, value in speedup.items()},
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
    each = rows.assign(rate=rows["images"] / rows["seconds"], per_image=rows["seconds"] / rows["images"])
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
                **_spread("images_per_second", here["rate"]),
                "images_per_second_core": here["rate"].mean() / cores,
                **_spread("wait_ms", 1000 * here["wait_s"]),
                "startup_s": here["startup_s"].mean(),
                **{f"gain{key}": value for key, value in gain.items()},
            }
        )
    ways = list(dict.fromkeys([alone, *rows.sort_values("repeat", kind="stable")["way"]]))
    table = pd.DataFrame(found)
    order = table["way"].map(ways.index)
    return table.assign(order=order).sort_values(["order", "processes"], ignore_index=True).drop(columns="order")


def _spread(name: str, values: pd.Series) -> dict[str, float]:
    return {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
