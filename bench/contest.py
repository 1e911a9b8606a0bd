"""Contests: commands that do the same work take turns within one run, and are compared by the ratios of their times."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from medscale.errors import MedscaleError


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes:
        name: what the table calls it.
        command: the command line that does the work, with what it writes below the folder.
        seconds: seconds of each repetition of the work, read from that folder.
    """

    name: str
    command: Callable[[Path], list[str]]
    seconds: Callable[[Path], Sequence[float]]


def hold(contestants: Sequence[Contestant], rounds: int, folder: Path, settle: int = 1) -> pd.DataFrame:
    """Let each contestant run once a round, in turns, so that what disturbs the machine disturbs all of them.

    Returns:
        Columns ``round, name, seconds``: the median of the repetitions without the first ``settle``.

    Raises:
        MedscaleError: when a command fails, with the end of what it said.
    """
    rows = []
    for number in range(rounds):
        for one in contestants if number % 2 == 0 else reversed(contestants):
            out = folder / f"{one.name.replace(' ', '-')}-{number}"
            out.mkdir(parents=True)
            done = subprocess.run(one.command(out), capture_output=True, text=True)
            if done.returncode:
                raise MedscaleError(f"{one.name} failed:\n{done.stderr[-2000:]}")
            seconds = one.seconds(out)
            rows.append((number, one.name, float(np.median(seconds[settle:]))))
            print(f"round {number + 1} of {rounds}  {one.name}: {rows[-1][2]:.3f} s", flush=True)
    return pd.DataFrame(rows, columns=["round", "name", "seconds"])


def ratio(table: pd.DataFrame, above: str, below: str) -> tuple[float, float, float]:
    """Seconds of one divided by those of another within each round: median, smallest, largest."""
    seconds = table.pivot(index="round", columns="name", values="seconds")
    each = seconds[above] / seconds[below]
    return float(each.median()), float(each.min()), float(each.max())


def show(table: pd.DataFrame, base: str, title: str) -> None:
    """Print each contestant's seconds, and its ratio to the base."""
    shown = Table("", "seconds", f"ratio to {base}", "over rounds", title=title, box=None, title_justify="left")
    for name in dict.fromkeys(table["name"]):
        middle, low, high = ratio(table, name, base)
        seconds = table.loc[table["name"] == name, "seconds"].median()
        shown.add_row(name, f"{seconds:.3f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}")
    Console().print(shown)
