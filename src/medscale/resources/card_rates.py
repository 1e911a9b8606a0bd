"""Measured training rates of cards: docs/gpu.csv, as `make bench-gpu` writes it."""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medscale.base.code import ROOT

TABLE = ROOT / "docs" / "gpu.csv"
KEY = ("card", "network", "size", "batch", "format", "way")  # columns that identify a row
COLUMNS = (
    *("card", "driver", "torch", "cuda", "date", "source"),
    *("network", "size", "batch", "format", "way"),
    *("images_per_second", "low", "high", "rounds"),
    *("peak_mb", "joules_image", "roofline", "gap", "data", "setup_s", "note"),
)
ENGINE = "engine"  # the way of the rows that the cost model takes


class Rate(NamedTuple):
    """The measured training speed of a network on one GPU."""

    size: int  # side of the images in pixels
    batch: int  # images of a step on the card
    images_per_second: float  # images of training, forward and backward


def rate(
    card: str, network: str, number_format: str, batch: int, table: Path = TABLE
) -> Rate | None:
    """Return the measured rate of the engine with the nearest batch size; None without one.

    Args:
        card: name of the card by PyTorch.
        network: name of the network.
        number_format: fp32, tf32, bf16 or fp16.
        batch: images of a step on the card.
        table: path of docs/gpu.csv.
    """
    rates = _rates(table).get((card, network, number_format), [])
    return min(rates, key=lambda r: abs(math.log(r.batch / batch)), default=None)


@cache
def _rates(table: Path) -> dict[tuple[str, str, str], list[Rate]]:
    """Return the rows of the engine by card, network and format."""
    rates: dict[tuple[str, str, str], list[Rate]] = {}
    if not table.is_file():
        return rates
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["way"] == ENGINE and row["images_per_second"]:
                key = row["card"], row["network"], row["format"]
                values = int(row["size"]), int(row["batch"]), float(row["images_per_second"])
                rates.setdefault(key, []).append(Rate(*values))
    return rates
