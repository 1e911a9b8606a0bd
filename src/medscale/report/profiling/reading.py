"""Folders of profiled runs, read back for figures, tables and facts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.files import read_json, read_table
from medscale.engine.run import RunSpec
from medscale.measure.profiling.bottleneck import Numbers
from medscale.report.marks import Marks
from medscale.report.names import label

TABLES = ("kinds", "operators", "kernels", "memory")
PRODUCTS = ("convolution", "matmul")


@dataclass(frozen=True)
class Profiled:
    """The folder of a profiled run."""

    name: str
    about: dict[str, Any]
    kinds: pd.DataFrame
    operators: pd.DataFrame
    kernels: pd.DataFrame
    memory: pd.DataFrame

    @property
    def cuda(self) -> bool:
        """Whether the run used GPUs, not CPU processes."""
        return self.about["device"] == "cuda"

    @property
    def marks(self) -> Marks:
        """The marks of its figures, with the number format."""
        amp, about = RunSpec.parse(self.name).amp, self.about
        return about["marks"] | {"amp": amp, "backend": about["device"], "format": about["format"]}

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return len(self.about["ranks"])

    @property
    def steps(self) -> int:
        """Number of traced steps."""
        return int(self.about["settings"]["steps"])

    @property
    def numbers(self) -> Numbers:
        """The numbers that decide which bottleneck is named."""
        return Numbers(**self.about["numbers"])

    @property
    def images_per_second(self) -> float:
        """Images a second over all ranks, without the profiler."""
        return float(self.about["images_a_step"] / self.numbers.seconds)

    @property
    def communication_s(self) -> float:
        """Seconds a step in which ranks communicate, hidden or not; the mean over ranks."""
        return float(sum(rank["communication_s"] for rank in self.about["ranks"]) / self.ranks)

    def share(self, kind: str) -> pd.Series:
        """Return the share of the traced time that a kind of operation takes, by rank."""
        return self.kinds[self.kinds["kind"] == kind].set_index("rank")["share"]

    def products(self) -> tuple[float, float]:
        """Return FLOPs a byte and FLOP/s a device of convolutions and products, while they run."""
        flops, moved = (
            sum(
                rank["work"][quantity].get(kind, 0.0)
                for rank in self.about["ranks"]
                for kind in PRODUCTS
            )
            for quantity in ("flops", "bytes")
        )
        seconds = self.kinds.loc[self.kinds["kind"].isin(PRODUCTS), "seconds"].sum()
        return flops / moved, flops / seconds


def read_profiled(folder: str | Path) -> Profiled:
    """Read the folder of a profiled run; MedscaleError when a file of it is missing or damaged."""
    folder = Path(folder)
    profile, remedy = read_json(folder / "profile.json"), f"delete {folder}"
    tables = {name: read_table(folder / f"{name}.parquet", remedy) for name in TABLES}
    return Profiled(profile["run"], profile, **tables)


def by_name(runs: Sequence[Profiled], kind: str, most: int) -> pd.DataFrame:
    """Return the operators or kernels that take most time over all runs, for each run.

    Args:
        kind: ``operators`` or ``kernels``.
        most: how many names are returned.

    Returns:
        ``name`` (shortened; with its kind where it mostly has another one), ``kind, run``,
        ``milliseconds`` and ``calls`` (a step, mean over ranks), ``microseconds`` (mean of a
        call), by name in order of their time over all runs.
    """
    parts = []
    for run in runs:
        table = getattr(run, kind).assign(run=run.name)
        table["name"] = table["name"].map(short)
        sums = table.groupby(["run", "name", "kind"], as_index=False)[["seconds", "calls"]].sum()
        steps = run.ranks * run.steps
        sums = sums.assign(milliseconds=1e3 * sums["seconds"] / steps, calls=sums["calls"] / steps)
        parts.append(sums.assign(microseconds=1e3 * sums["milliseconds"] / sums["calls"]))
    every = pd.concat(parts, ignore_index=True).drop(columns="seconds")
    every = every.astype({"name": str, "kind": str})  # also where there are no rows
    by_kind = every.groupby(["name", "kind"])["milliseconds"].sum().sort_values().reset_index()
    usual = by_kind.drop_duplicates("name", keep="last").set_index("name")["kind"]
    rare = every["kind"] != every["name"].map(usual)
    every["name"] = every["name"].where(~rare, every["name"] + " (" + every["kind"] + ")")
    order = every.groupby("name")["milliseconds"].sum().sort_values(ascending=False).index[:most]
    places = {name: place for place, name in enumerate(order)}
    top_rows = every[every["name"].isin(order)]
    return top_rows.sort_values(
        "name", key=lambda names: names.map(places), kind="stable", ignore_index=True
    )


def short(name: str) -> str:
    """Return an operator's or kernel's name without namespaces, template and signature."""
    plain = name.removeprefix("autograd::engine::evaluate_function: ").removeprefix("void ")
    plain = re.split(r"[<(]", plain)[0] or plain
    return plain.split("::")[-1].strip()


def run_name(run: Profiled) -> str:
    """Return a run in words, with a dagger where CPU processes stand in for its GPUs."""
    return label(run.name) + (" †" if run.about["marks"]["stand_in"] else "")


def device(run: Profiled) -> str:
    """Return the name of the GPUs or of the CPU that the run used."""
    machine = run.about["machine"]
    return ", ".join(dict.fromkeys(machine["gpus"])) if run.cuda else str(machine["cpu"])
