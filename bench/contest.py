"""Contests: ways to do the same work take turns in one run and are compared by ratios of times."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from medscale.base.errors import MedscaleError
from medscale.measure.record import in_turns, start_method


@dataclass(frozen=True)
class Contestant:
    """A program that does the work.

    Attributes:
        name: in the table.
        command: the command line that does the work, and writes into the given folder.
        seconds: reads the seconds of each repetition from that folder.
    """

    name: str
    command: Callable[[Path], list[str]]
    seconds: Callable[[Path], Sequence[float]]


def take_turns(
    ways: Mapping[str, Callable[[int], float]], rounds: int, quiet: bool = False
) -> pd.DataFrame:
    """Let each way do its work once a round, in turns.

    Disturbances of the machine then affect all ways alike.

    Args:
        ways: by name, a function from the number of a round to the seconds of its work.
        rounds: number of rounds; every second one goes through the ways backwards.
        quiet: print nothing during the rounds.

    Returns:
        Columns ``round, name, seconds``.
    """
    rows = []
    for number in range(rounds):
        for name in in_turns(list(ways), number):
            rows.append((number, name, ways[name](number)))
            if not quiet:
                print(f"round {number + 1} of {rounds}  {name}: {rows[-1][2]:.3f} s", flush=True)
    return pd.DataFrame(rows, columns=["round", "name", "seconds"])


def hold(
    contestants: Sequence[Contestant], rounds: int, folder: Path, settle: int = 1
) -> pd.DataFrame:
    """Let each contestant run once a round, as ``take_turns`` does.

    Returns:
        Columns ``round, name, seconds``: the median of the repetitions after the first ``settle``.

    Raises:
        MedscaleError: when a command fails, with the end of its error output.
    """
    return take_turns(
        {contestant.name: partial(_run, contestant, folder, settle) for contestant in contestants},
        rounds,
    )


def _run(contestant: Contestant, folder: Path, settle: int, number: int) -> float:
    out = folder / f"{contestant.name.replace(' ', '-')}-{number}"
    out.mkdir(parents=True)
    finish(contestant.name, contestant.command(out))
    return float(np.median(contestant.seconds(out)[settle:]))


def finish(name: str, command: list[str]) -> None:
    """Run a command line.

    Raises:
        MedscaleError: when it fails, with the end of its error output.
    """
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise MedscaleError(f"{name} failed:\n{process.stderr[-2000:]}")


def on_one_core() -> None:
    """Bind this process to the first of its cores, with one thread for OpenCV."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    cv2.setNumThreads(1)


def one_core_process() -> ProcessPoolExecutor:
    """Return a process on one core; it persists, so that its imports are not timed."""
    return ProcessPoolExecutor(1, start_method("medscale.measure.loading"), on_one_core)


def ratio(table: pd.DataFrame, above: str, below: str) -> tuple[float, float, float]:
    """Return median, minimum and maximum over rounds of the ratio of two ways' seconds."""
    seconds = table.pivot(index="round", columns="name", values="seconds")
    ratios = seconds[above] / seconds[below]
    return float(ratios.median()), float(ratios.min()), float(ratios.max())


def show(table: pd.DataFrame, base: str, title: str, images: int | None = None) -> None:
    """Print each contestant's seconds, ratio to the base and, with ``images``, images a second."""
    output = Table(
        "",
        "seconds",
        f"ratio to {base}",
        "over rounds",
        title=title,
        box=None,
        title_justify="left",
    )
    if images is not None:
        output.add_column("images/s", justify="right")
    for name in dict.fromkeys(table["name"]):
        middle, low, high = ratio(table, name, base)
        seconds = table.loc[table["name"] == name, "seconds"].median()
        rate = [] if images is None else [f"{images / seconds:.0f}"]
        output.add_row(name, f"{seconds:.3f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}", *rate)
    Console().print(output)


def judge(subject: str, interval: tuple[float, float, float], reached: bool) -> None:
    """Print a ratio with its range over rounds, and whether it reaches the aim."""
    middle, low, high = interval
    verdict = "[green]reached" if reached else "[red]missed"
    Console().print(f"{subject}: {middle:.3f} ({low:.3f} to {high:.3f})  {verdict}")


def print_table(table: pd.DataFrame) -> None:
    """Print a table."""
    output = Table(*table.columns, box=None)
    for row in table.itertuples(index=False):
        output.add_row(*map(str, row))
    Console().print(output)
