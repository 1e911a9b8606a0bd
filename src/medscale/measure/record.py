"""The record of a benchmark: a CSV file of repetitions, and JSON on settings and machine."""

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import write_csv, write_json
from medscale.base.log import log
from medscale.base.provenance import machine
from medscale.base.section import Strict
from medscale.data.index_file import NEW_INDEX

Ways = Mapping[str, tuple[str, str]]  # by name, the title and the description of a way


class Marks(Strict):
    """Limits of the measured data that figures and tables must state, as for a run."""

    synthetic: bool
    stand_in: bool
    scale: str


def cores() -> list[int]:
    """Return the cores that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def in_turns(items: Sequence[Any], repeat: int) -> list[Any]:
    """Return the items in order in even repetitions, and in reverse order in odd ones.

    The mean over repetitions then favours no item if the speed of the machine drifts.
    """
    return list(items) if repeat % 2 == 0 else list(reversed(items))


def spread(positions: np.ndarray, limit: int) -> np.ndarray:
    """Return at most ``limit`` of the positions, spread evenly over all of them."""
    count = min(limit, len(positions))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]


def warm(files: Sequence[Path]) -> None:
    """Read files once, so that the system's cache holds as many of them as fit.

    Raises:
        MedscaleError: when a file cannot be read.
    """
    for file in files:
        try:
            with open(file, "rb", buffering=0) as stream:
                while stream.read(1 << 20):
                    pass
        except OSError as error:
            raise MedscaleError(f"{file} cannot be read ({error.strerror}); {NEW_INDEX}") from None


def start_method(module: str) -> ForkServerContext:
    """Return a context whose processes are forked from one that has only imported ``module``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def write(
    out: Path,
    benchmark: str,
    rows: pd.DataFrame,
    settings: dict[str, Any],
    marks: Marks,
    ways: Ways | None = None,
    missing: Mapping[str, str] | None = None,
) -> None:
    """Write ``<benchmark>.csv`` and ``<benchmark>.json``.

    Args:
        out: folder of the files.
        benchmark: name of the benchmark: enhance, loading, formats, export or inference.
        rows: one row for each repetition.
        settings: the benchmark's section of the configuration.
        marks: limits of the study's data.
        ways: title and description of each way that the rows compare.
        missing: reason for each way or device that was not measured.
    """
    write_csv(out / f"{benchmark}.csv", rows)
    record: dict[str, Any] = {
        "benchmark": benchmark,
        "settings": settings,
        "marks": marks.model_dump(),
        "machine": machine(),
    }
    if ways is not None:
        record["ways"] = {
            name: {"label": title, "does": description}
            for name, (title, description) in ways.items()
        }
    if missing is not None:
        record["missing"] = dict(missing)
    write_json(out / f"{benchmark}.json", record)
    log.info("%s: %d repetitions measured on %d cores", benchmark, len(rows), len(cores()))
