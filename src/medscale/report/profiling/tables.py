"""Tables of profiled runs: time by kind, operators, memory, attained rates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.text import latex
from medscale.measure.profiling.kinds import KINDS
from medscale.report import style
from medscale.report.latex import number, significant, span, stacked, tabular
from medscale.report.names import label
from medscale.report.profiling.reading import Profiled, by_name, device
from medscale.report.result.reading import records
from medscale.report.tables import DAGGER, Column, left, right, table

MOST = 8  # operators or kernels of a table, of all runs together
IDLE = {False: "outside operators", True: "no kernel"}  # of a CPU; of a GPU
GROUPS = ((False, "operators"), (True, "operators"), (True, "kernels"))


def kinds(runs: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """Return a column for each run: times of a step, then the share of each kind of operation."""
    lines = [
        (
            "measured on",
            lambda run: latex(f"{'GPU' if run.cuda else 'CPU'}, {run.about['format']}"),
        ),
        ("threads a process", lambda run: str(run.about["threads"])),
        ("ms a step", lambda run: significant(1e3 * run.numbers.seconds)),
        ("images/s", lambda run: significant(run.images_per_second)),
        (r"longer under the profiler (\%)", lambda run: number(run.numbers.slowdown, 0, 100)),
    ]
    idle = " or ".join(dict.fromkeys(IDLE[run.cuda] for run in runs))
    rules = [1, len(lines) - 1, len(lines) - 1 + len(KINDS)]
    for kind in KINDS:
        lines.append((latex(idle if kind == "idle" else kind) + r" (\%)", _share(kind)))
    lines += [
        ("communication, hidden or not (ms)", lambda run: significant(1e3 * run.communication_s)),
        ("bottleneck", lambda run: latex(run.about["bottleneck"]["rule"])),
    ]
    heads = [("r", stacked(_run(run).replace(", ", r",\\", 1))) for run in runs]
    cells = [[name, *[cell(run) for run in runs]] for name, cell in lines]
    shares = []
    for kind in KINDS:
        for run in runs:
            share = run.share(kind)
            ends = {"share_low": share.min(), "share_high": share.max()}
            shares.append({"run": run.name, "kind": kind, "share": share.mean(), **ends})
    flat = pd.DataFrame(shares).merge(pd.DataFrame([_numbers(run) for run in runs]), on="run")
    return tabular([("l", ""), *heads], cells, rules), flat


def operators(runs: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """Return the operators, and of GPUs the kernels, that take most time in each run."""
    parts = []
    for cuda, what in GROUPS:
        if chosen := [run for run in runs if run.cuda == cuda]:
            part = by_name(chosen, what, MOST)
            parts.append(part.assign(what=what, device="GPU" if cuda else "CPU"))
    flat = pd.concat(parts, ignore_index=True)
    names = {run.name: _run(run) for run in runs}
    groups = flat.groupby(["what", "device", "name"], sort=False)
    rows = [
        row for _, part in groups for row in records(part.assign(first=np.arange(len(part)) == 0))
    ]
    columns = [
        left(
            "operator or kernel",
            lambda row: latex(style.shorten(row["name"], 40)) if row["first"] else "",
        ),
        left("kind", lambda row: row["kind"] if row["first"] else ""),
        left("run", lambda row: names[row["run"]]),
        Column("r", "ms a step", lambda row: significant(row["milliseconds"])),
        Column("r", "calls a step", lambda row: significant(row["calls"])),
        Column("r", r"mean (\textmu{}s)", lambda row: significant(row["microseconds"])),
    ]
    ends = groups.size().cumsum() - 1
    return table(rows, columns, rules_after=ends.tolist()), flat


def memory(runs: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """Return the memory of each rank: its peak, and the allocations of a step."""
    names = {run.name: _run(run) for run in runs}
    rows: list[dict[str, Any]] = []
    for run in runs:
        for rank, record in enumerate(run.about["ranks"]):
            megabytes = run.memory.loc[run.memory["rank"] == rank, "bytes"] / 2**20
            rows.append(
                {
                    "run": run.name,
                    "rank": rank,
                    "device": "GPU" if run.cuda else "host",
                    "most_mb": megabytes.max(),
                    "allocated_mb": record["allocated_bytes"] / 2**20,
                    "allocations": record["allocations"],
                }
            )
    columns = [
        left("run", lambda row: names[row["run"]]),
        Column("r", "rank", lambda row: str(row["rank"])),
        left("memory of", lambda row: row["device"]),
        right(r"peak\\(MiB)", lambda row: significant(row["most_mb"])),
        right(r"allocated\\a step (MiB)", lambda row: significant(row["allocated_mb"])),
        right(r"allocations\\a step", lambda row: significant(row["allocations"])),
    ]
    return table(rows, columns), pd.DataFrame(rows)


def roofline(runs: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """Return the work of a step, the ceilings of the devices, and the attained rates."""
    names = {run.name: _run(run) for run in runs}

    def giga(key: str, per_second: bool = False) -> Any:
        def cell(row: dict[str, Any]) -> str:
            return significant(row[key] / (row["seconds"] if per_second else 1) / 1e9)

        return cell

    columns = [
        left("run", lambda row: names[row["run"]]),
        left("format", lambda row: row["format"]),
        right(r"GFLOPs\\a step", giga("flops")),
        right(r"GB\\a step", giga("bytes")),
        right(r"FLOPs\\a byte", lambda row: significant(row["intensity"])),
        right(r"ridge\\(FLOPs a byte)", lambda row: significant(row["ridge"])),
        right("GFLOP/s", giga("flops", per_second=True)),
        right(r"ceiling\\(GFLOP/s)", giga("ceiling_flops")),
        right("GB/s", giga("bytes", per_second=True)),
        right(r"ceiling\\(GB/s)", giga("ceiling_bytes")),
    ]
    flat = [_numbers(run) for run in runs]
    derived = [{"intensity": run.numbers.intensity, "ridge": run.numbers.ridge} for run in runs]
    rows = [row | more for row, more in zip(flat, derived, strict=True)]
    return table(rows, columns), pd.DataFrame(flat)


def _share(kind: str) -> Any:
    """Return a cell with the mean share of a kind over ranks, and its range."""

    def cell(run: Profiled) -> str:
        share = run.share(kind)
        ends = f" ({span(share.min(), share.max(), 1, 100)})" if run.ranks > 1 else ""
        return number(share.mean(), 1, 100) + ends

    return cell


def _numbers(run: Profiled) -> dict[str, Any]:
    """Return a run's numbers with every digit, and the device they were measured on."""
    return {
        "run": run.name,
        "model": run.about["model"],
        "device": device(run),
        "threads": run.about["threads"],
        "format": run.about["format"],
        **run.about["marks"],
        **run.about["numbers"],
        "attained_flops": run.numbers.flops_share,
        "attained_bytes": run.numbers.bytes_share,
        "images_per_second": run.images_per_second,
        "communication_s": run.communication_s,
        "communicated_bytes": sum(rank["work"]["communicated"] for rank in run.about["ranks"]),
        "bottleneck": run.about["bottleneck"]["rule"],
    }


def _run(run: Profiled) -> str:
    return latex(label(run.name)) + (DAGGER if run.about["marks"]["stand_in"] else "")
