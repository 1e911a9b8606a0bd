"""What every measurement writes: a row a repetition as CSV, and beside it its settings, marks and machine as JSON."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import write_csv, write_json
from medscale.base.log import log
from medscale.base.provenance import machine
from medscale.base.section import Strict


class Marks(Strict):
    """What must be said beside all that is measured on these images, as of a run."""

    synthetic: bool
    stand_in: bool
    scale: str


def cores() -> list[int]:
    """Cores that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def in_turns(items: Sequence[Any], repeat: int) -> list[Any]:
    """The items forwards in even repetitions, backwards in odd ones: what drifts on a machine then favours none."""
    return list(items) if repeat % 2 == 0 else list(reversed(items))


def warm(files: Sequence[Path]) -> None:
    """Read files once, so that those that fit are in the system's cache whoever reads them next.

    Raises:
        MedscaleError: when one cannot be read.
    """
    for file in files:
        try:
            with open(file, "rb", buffering=0) as opened:
                while opened.read(1 << 20):
                    pass
        except OSError as error:
            raise MedscaleError(
                f"{file} cannot be read ({error.strerror}); make the index again"
            ) from None


def start_method(module: str) -> ForkServerContext:
    """How further processes are started: forked from one that has imported ``module`` and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def write(
    out: Path,
    benchmark: str,
    rows: pd.DataFrame,
    settings: dict[str, Any],
    marks: Marks,
    **more: Any,
) -> None:
    """Write ``<benchmark>.csv`` and ``<benchmark>.json`` into the folder ``out``."""
    write_csv(out / f"{benchmark}.csv", rows)
    about = {
        "benchmark": benchmark,
        "settings": settings,
        "marks": marks.model_dump(),
        "machine": machine(),
        **more,
    }
    write_json(out / f"{benchmark}.json", about)
    log.info("%s: %d repetitions measured on %d cores", benchmark, len(rows), len(cores()))
