"""Figures, tables and facts of a study's profiled runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medscale.base.files import write_json
from medscale.measure.profiling.kinds import KINDS
from medscale.report import style
from medscale.report.latex import escape, number, significant, span, stacked, tabular
from medscale.report.marks import mark
from medscale.report.names import label
from medscale.report.overview import tables
from medscale.report.profiling import figures as profile_figures
from medscale.report.profiling.facts import facts
from medscale.report.profiling.reading import Profiled, by_name, device, read_profiled
from medscale.report.result.reading import records

MOST = 8  # operators or kernels of a table, of all runs together
IDLE = {False: "outside operators", True: "no kernel"}


def write_profiles(folders: Sequence[Path], figures: Path, tables_to: Path) -> None:
    """Write ``profile, operators, memory, roofline`` as figures and tables of a study, and its ``profile.json``.

    Args:
        folders: profiled folders of one study, in the order in which runs are shown.
        figures: folder of the figures.
        tables_to: folder of the tables.

    Raises:
        MedscaleError: when an input is missing or damaged.
    """
    found = [read_profiled(folder) for folder in folders]
    seen = mark(one.about["marks"] for one in found)
    for name, draw, write in (
        ("profile", profile_figures.kinds, _kinds),
        ("operators", profile_figures.operators, _operators),
        ("memory", profile_figures.memory, _memory),
        ("roofline", profile_figures.roofline, _roofline),
    ):
        style.save(draw(found), figures / f"{name}.pdf", seen)
        tables.write(tables_to, name, *write(found))
    write_json(tables_to / "profile.json", facts(found))


def _kinds(found: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """A column a run: times of a step, then the share of each kind, with the range over ranks."""
    rows = [
        [
            "measured on",
            *[escape(f"{'GPU' if one.cuda else 'CPU'}, {one.about['format']}") for one in found],
        ],
        ["threads a process", *[str(one.about["threads"]) for one in found]],
        ["ms a step", *[significant(1e3 * one.numbers.seconds) for one in found]],
        ["images/s", *[significant(one.images_per_second) for one in found]],
        [
            r"longer under the profiler (\%)",
            *[number(one.numbers.slowdown, 0, 100) for one in found],
        ],
    ]
    flat = []
    for kind in KINDS:
        name = (
            " or ".join(dict.fromkeys(IDLE[one.cuda] for one in found)) if kind == "idle" else kind
        )
        cells = []
        for one in found:
            shares = one.share(kind)
            low, high = shares.min(), shares.max()
            ranged = f" ({span(low, high, 1, 100)})" if one.ranks > 1 else ""
            cells.append(number(shares.mean(), 1, 100) + ranged)
            flat.append(
                {
                    "run": one.name,
                    "kind": kind,
                    "share": shares.mean(),
                    "share_low": low,
                    "share_high": high,
                }
            )
        rows.append([escape(name) + r" (\%)", *cells])
    rows.append(
        ["communication, hidden or not (ms)", *[significant(1e3 * _exchange(one)) for one in found]]
    )
    rows.append(["what bounds it", *[escape(one.about["bottleneck"]["rule"]) for one in found]])
    table = pd.DataFrame(flat).merge(pd.DataFrame([_flat(one) for one in found]), on="run")
    return tabular(
        [("l", ""), *[("r", stacked(_run(one).replace(", ", r",\\", 1))) for one in found]],
        rows,
        [1, 4, 4 + len(KINDS)],
    ), table


def _operators(found: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """The operators that take most time, and of GPUs the kernels, in each run."""
    parts = []
    for cuda, what in ((False, "operators"), (True, "operators"), (True, "kernels")):
        if runs := [one for one in found if one.cuda == cuda]:
            parts.append(
                by_name(runs, what, MOST).assign(what=what, device="GPU" if cuda else "CPU")
            )
    table = pd.concat(parts, ignore_index=True)
    names = {one.name: _run(one) for one in found}
    rows, rules = [], []
    for _, of_one in table.groupby(["what", "device", "name"], sort=False):
        for place, row in enumerate(records(of_one)):
            first = (
                [escape(style.shorten(row["name"], 40)), row["kind"]] if place == 0 else ["", ""]
            )
            cells = [
                significant(row[column]) for column in ("milliseconds", "calls", "microseconds")
            ]
            rows.append([*first, names[row["run"]], *cells])
        rules.append(len(rows) - 1)
    heads = [("l", "operator or kernel"), ("l", "kind"), ("l", "run")]
    units = [("r", "ms a step"), ("r", "calls a step"), ("r", r"mean (\textmu{}s)")]
    return tabular([*heads, *units], rows, rules), table


def _memory(found: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """Memory of each rank in the traced steps: the most at a time, and what was asked for in a step."""
    flat, rows = [], []
    for one in found:
        for rank in range(one.ranks):
            held = one.memory.loc[one.memory["rank"] == rank, "bytes"] / 2**20
            seen, device = one.about["ranks"][rank], "GPU" if one.cuda else "host"
            sizes = {"most_mb": held.max(), "allocated_mb": seen["allocated_bytes"] / 2**20}
            flat.append(
                {
                    "run": one.name,
                    "rank": rank,
                    "device": device,
                    **sizes,
                    "allocations": seen["allocations"],
                }
            )
            cells = [significant(size) for size in (*sizes.values(), seen["allocations"])]
            rows.append([_run(one), str(rank), device, *cells])
    heads = [
        ("r", "most (MB)"),
        ("r", stacked(r"allocated\\a step (MB)")),
        ("r", stacked(r"allocations\\a step")),
    ]
    columns = [("l", "run"), ("r", "rank"), ("l", "memory of the"), *heads]
    return tabular(columns, rows), pd.DataFrame(flat)


def _roofline(found: Sequence[Profiled]) -> tuple[str, pd.DataFrame]:
    """What each run does in a step, what its devices can do, and how much of it is attained."""
    rows = []
    for one in found:
        n = one.numbers
        rows.append(
            [
                _run(one),
                one.about["format"],
                significant(n.flops / 1e9),
                significant(n.bytes / 1e9),
                significant(n.intensity),
                significant(n.ridge),
                significant(n.flops / n.seconds / 1e9),
                significant(n.ceiling_flops / 1e9),
                significant(n.bytes / n.seconds / 1e9),
                significant(n.ceiling_bytes / 1e9),
            ]
        )
    heads = (
        "GFLOPs\\\\a step",
        "GB\\\\a step",
        "FLOPs\\\\a byte",
        "ridge",
        "GFLOP/s",
        "ceiling",
        "GB/s",
        "ceiling",
    )
    columns = [("l", "run"), ("l", "format"), *[("r", stacked(head)) for head in heads]]
    return tabular(columns, rows), pd.DataFrame([_flat(one) for one in found])


def _flat(one: Profiled) -> dict[str, object]:
    """A run's numbers with every digit, and what they were measured on."""
    n = one.numbers
    return {
        "run": one.name,
        "model": one.about["model"],
        "device": device(one),
        "threads": one.about["threads"],
        "format": one.about["format"],
        **one.about["marks"],
        **one.about["numbers"],
        "attained_flops": n.of_flops,
        "attained_bytes": n.of_bytes,
        "images_per_second": one.images_per_second,
        "communication_s": _exchange(one),
        "communicated_bytes": sum(rank["work"]["communicated"] for rank in one.about["ranks"]),
        "bottleneck": one.about["bottleneck"]["rule"],
    }


def _exchange(one: Profiled) -> float:
    """Seconds a step in which ranks exchange, hidden or not; mean over ranks."""
    return float(sum(rank["communication_s"] for rank in one.about["ranks"]) / one.ranks)


def _run(one: Profiled) -> str:
    """A run in words, with a dagger where CPU processes stand in for its GPUs."""
    return escape(label(one.name)) + (tables.DAGGER if one.about["marks"]["stand_in"] else "")
