"""Profiled folders of a study, read back for figures and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.measure.profiling.bottleneck import Numbers
from medscale.report.names import label

TABLES = ("kinds", "operators", "kernels", "memory")
PRODUCTS = ("convolution", "matmul")


@dataclass(frozen=True)
class Profiled:
    """One run's profiled folder."""

    name: str
    about: dict[str, Any]
    kinds: pd.DataFrame
    operators: pd.DataFrame
    kernels: pd.DataFrame
    memory: pd.DataFrame

    @property
    def cuda(self) -> bool:
        """Whether GPUs did it; else CPU processes."""
        return self.about["device"] == "cuda"

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return len(self.about["ranks"])

    @property
    def steps(self) -> int:
        """Steps that were traced."""
        return int(self.about["settings"]["steps"])

    @property
    def numbers(self) -> Numbers:
        """What the bottleneck is told from."""
        return Numbers(**self.about["numbers"])

    @property
    def images_per_second(self) -> float:
        """Images a second over all ranks, without the profiler."""
        return float(self.about["images_a_step"] / self.numbers.seconds)

    def share(self, kind: str) -> pd.Series:
        """Share of the window's time by rank."""
        return self.kinds[self.kinds["kind"] == kind].set_index("rank")["share"]

    def products(self) -> tuple[float, float]:
        """FLOPs a byte and FLOP/s a device of convolutions and matrix products alone, while they run."""
        flops, moved = (
            sum(
                rank["work"][what].get(kind, 0.0)
                for rank in self.about["ranks"]
                for kind in PRODUCTS
            )
            for what in ("flops", "bytes")
        )
        seconds = self.kinds.loc[self.kinds["kind"].isin(PRODUCTS), "seconds"].sum()
        return flops / moved, flops / seconds


def read_profiled(folder: str | Path) -> Profiled:
    """Read a profiled folder.

    Raises:
        MedscaleError: when a file of it is missing or damaged.
    """
    folder = Path(folder)
    about, tables = read_json(folder / "profile.json"), {}
    for name in TABLES:
        try:
            tables[name] = pd.read_parquet(folder / f"{name}.parquet")
        except (OSError, ValueError) as error:
            raise MedscaleError(
                f"{folder / name}.parquet cannot be read ({error}); delete {folder}"
            ) from None
    return Profiled(about["run"], about, **tables)


def by_name(found: Sequence[Profiled], what: str, most: int) -> pd.DataFrame:
    """The operators or kernels that take most time over all runs, with their numbers in each run, mean over ranks.

    Args:
        found: the runs.
        what: operators or kernels.
        most: how many names.

    Returns:
        ``name`` (shortened; with its kind where that is not its usual one), ``kind, run``, ``milliseconds`` and
        ``calls`` (a step), ``microseconds`` (mean of a call), by name in order of their time over all runs.
    """
    parts = []
    for one in found:
        table = getattr(one, what).assign(run=one.name)
        table["name"] = table["name"].map(short)
        sums = table.groupby(["run", "name", "kind"], as_index=False)[["seconds", "calls"]].sum()
        each = one.ranks * one.steps
        sums = sums.assign(milliseconds=1e3 * sums["seconds"] / each, calls=sums["calls"] / each)
        parts.append(sums.assign(microseconds=1e3 * sums["milliseconds"] / sums["calls"]))
    every = pd.concat(parts, ignore_index=True).drop(columns="seconds")
    by_kind = every.groupby(["name", "kind"])["milliseconds"].sum().sort_values().reset_index()
    usual = by_kind.drop_duplicates("name", keep="last").set_index("name")["kind"]
    odd = every["kind"] != every["name"].map(usual)
    every["name"] = every["name"].where(~odd, every["name"] + " (" + every["kind"] + ")")
    order = every.groupby("name")["milliseconds"].sum().sort_values(ascending=False).index[:most]
    kept = every[every["name"].isin(order)]
    return kept.sort_values(
        "name", key=lambda n: n.map(list(order).index), kind="stable", ignore_index=True
    )


def short(name: str) -> str:
    """An operator's or kernel's name without namespaces, template arguments and signature."""
    plain = name.removeprefix("autograd::engine::evaluate_function: ").removeprefix("void ")
    plain = re.split(r"[<(]", plain)[0] or plain
    return plain.split("::")[-1].strip()


def called(one: Profiled) -> str:
    """A run in words, with what carried it out where that is not its name's device."""
    return label(one.name) + (" †" if one.about["marks"]["stand_in"] else "")


def device(one: Profiled) -> str:
    """What carried the run out."""
    machine = one.about["machine"]
    return ", ".join(dict.fromkeys(machine["gpus"])) if one.cuda else str(machine["cpu"])
