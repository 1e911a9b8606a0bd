"""Training rates that were measured on GPUs: docs/gpu.csv, as `make bench-gpu` writes it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medscale.base.code import ROOT
from medscale.engine.plan import Model

TABLE = ROOT / "docs" / "gpu.csv"
KEY = ("card", "network", "size", "batch", "format", "way")  # columns that identify a row
COLUMNS = (
    *("card", "driver", "torch", "cuda", "date", "source"),
    *("network", "size", "batch", "format", "way"),
    *("images_per_second", "low", "high", "rounds"),
    *("peak_mb", "joules_image", "roofline", "gap", "data", "setup_s", "note"),
)
SOURCE = "make bench-gpu"  # rows of other sources are measurements of plain loops alone
ENGINE = "engine"  # the way of the rows that the cost model takes
# Ways with a CUDA graph of the whole step, and the same with a compiled network. The engine is
# what a run uses; a plain loop stands for it on a card where only loops were measured.
COMPILED = {ENGINE: "engine_compiled", "graph": "compiled_graph"}

# Options of networks that do not change the speed of training
FREE_OPTIONS = {"dropout", "drop_rate", "drop_path_rate"}


class Rate(NamedTuple):
    """The measured training speed of a network on one GPU."""

    size: int  # side of the images in pixels
    batch: int  # images of a step on the card
    images_per_second: float  # images of training, forward and backward
    setup_s: float | None  # from the start of the training to its first step, if it was measured


class Compilation(NamedTuple):
    """The measured speed of a network without and with compilation, on one GPU."""

    card: str
    way: str  # ``engine``, or ``graph``: a plain loop
    plain: Rate
    compiled: Rate

    @property
    def seconds(self) -> float:
        """Return the seconds that compiling adds before the first step."""
        return (self.compiled.setup_s or 0.0) - (self.plain.setup_s or 0.0)


def has_usual_speed(model: Model) -> bool:
    """Return whether a network has the same speed as without options.

    docs/gpu.csv has rates of networks without options alone. medical_cnn of a quarter of its usual
    width, for instance, does a sixteenth of the work.
    """
    return not set(model.options) - FREE_OPTIONS


def rate(card: str, network: str, number_format: str, batch: int) -> Rate | None:
    """Return the measured rate of the engine with the nearest batch size; None without one.

    Args:
        card: name of the card by PyTorch.
        network: name of the network.
        number_format: fp32, tf32, bf16 or fp16.
        batch: images of a step on the card.
    """
    return nearest(_rates(TABLE).get((card, network, number_format, ENGINE), []), batch)


def rates(card: str, number_format: str) -> Iterator[tuple[str, Rate]]:
    """Yield network and rate of each row of the engine on a card in a format."""
    for (row_card, network, row_format, way), cells in _rates(TABLE).items():
        if (row_card, row_format, way) == (card, number_format, ENGINE):
            yield from ((network, cell) for cell in cells)


def strategy_share(
    card: str, network: str, number_format: str, batch: int, strategy: str
) -> float | None:
    """Return the rate of a strategy on one card, divided by the serial rate; None without both.

    Args:
        card: name of the card by PyTorch.
        network: name of the network.
        number_format: fp32, tf32, bf16 or fp16.
        batch: images of a step on the card; the nearest measured batch counts.
        strategy: ``ddp`` or ``fsdp``; `make bench-gpu` measures no others.
    """
    pair = _pair(card, network, number_format, batch, ENGINE, f"{ENGINE}_{strategy}")
    return None if pair is None else pair[1].images_per_second / pair[0].images_per_second


def compilation(card: str, network: str, number_format: str, batch: int) -> Compilation | None:
    """Return what compiling a network gains and costs; None if nobody has measured it.

    Measurements of the card precede those of other cards, and those of the engine precede those of
    plain loops.

    Args:
        card: name of the card by PyTorch.
        network: name of the network.
        number_format: fp32, tf32, bf16 or fp16.
        batch: images of a step on the card; the nearest measured batch counts.
    """
    cards = sorted({key[0] for key in _rates(TABLE)}, key=lambda name: (name != card, name))
    for measured_card in cards:
        for way, compiled in COMPILED.items():
            pair = _pair(measured_card, network, number_format, batch, way, compiled)
            if pair is not None and pair[1].setup_s is not None:
                return Compilation(measured_card, way, *pair)
    return None


def nearest(cells: list[Rate], batch: int) -> Rate | None:
    """Return the rate whose batch size is nearest by its logarithm; None without rates."""
    return min(cells, key=lambda cell: abs(math.log(cell.batch / batch)), default=None)


def _pair(
    card: str, network: str, number_format: str, batch: int, first: str, second: str
) -> tuple[Rate, Rate] | None:
    """Return the rates of two ways with the same images and batch, the nearest measured one."""
    table = _rates(TABLE)
    first_cells, second_cells = (
        {cell[:2]: cell for cell in table.get((card, network, number_format, way), [])}
        for way in (first, second)
    )
    cell = nearest([first_cells[key] for key in first_cells if key in second_cells], batch)
    return None if cell is None else (cell, second_cells[cell[:2]])


@cache
def _rates(table: Path) -> dict[tuple[str, str, str, str], list[Rate]]:
    """Return the measured rates by card, network, number format and way."""
    cells: dict[tuple[str, str, str, str], list[Rate]] = {}
    if not table.is_file():
        return cells
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["images_per_second"]:
                key = row["card"], row["network"], row["format"], row["way"]
                setup_s = float(row["setup_s"]) if row["setup_s"] else None
                values = int(row["size"]), int(row["batch"]), float(row["images_per_second"])
                cells.setdefault(key, []).append(Rate(*values, setup_s))
    return cells
