"""`medscale summary`: the paper, figures and results of a study, and how long each stage took."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Column, Table

from medscale.base.code import ROOT, shown_path
from medscale.base.console import plain
from medscale.base.files import read_table
from medscale.base.paths import SUMMARY
from medscale.base.timing import stage_times
from medscale.report.marks import STAND_IN
from medscale.report.result.reading import records
from medscale.report.result.summary import read_summary
from medscale.report.show import legend, overview
from medscale.report.synthesis.runs import BASELINE
from medscale.resources.jobs import stage_of
from medscale.workflow.graph import Graph
from medscale.workflow.progress.display import duration

PAPER = Path("paper", "paper.pdf")  # below the workdir


def facts(graph: Graph) -> dict[str, Any]:
    """Return the existing outputs of the active studies: results, verdicts, files, times of stages.

    Results and figures of a variant or an external set are an entry of ``studies``, as those of a
    study.
    ``speedup`` is over one device of the same kind, ``change`` the difference in accuracy from the
    baseline in percentage points, both with the ends of their 95 % intervals (``_low, _high``).
    """
    verdicts, paper = graph.workdir / "tables" / "verdicts.csv", graph.workdir / PAPER
    rows = records(read_table(verdicts)) if verdicts.exists() else []
    times = stage_times(graph.workdir)
    names = {"", *graph.trained, *graph.externals}  # the paper belongs to no single study
    return {
        "workdir": shown_path(graph.workdir),
        "studies": [_study(graph, name) for name in [*graph.with_variants, *graph.externals]],
        "runs": [row for row in rows if row["study"] in graph.studies],
        "stages": times[times["study"].isin(names)].to_dict("records"),
        "paper": shown_path(paper) if paper.exists() else None,
    }


def lines(graph: Graph, since: float = 0) -> Iterator[RenderableType]:
    """Yield the lines and tables for the terminal; results come first, times last.

    Args:
        graph: the study.
        since: start of the command that made the study (Unix time); 0 leaves out how long it took.
    """
    outputs = facts(graph)
    summaries: list[dict[str, Any]] = []
    for study in outputs["studies"]:
        yield f"\n[bold]{plain(study['title'])}[/]"
        is_external = study["study"] in graph.externals
        results = {
            r["run"]: read_summary(ROOT / r["folder"], is_external) for r in study["results"]
        }
        yield from overview(results)
        summaries += results.values()
        if not results:
            yield f" no results yet in {plain(study['results_folder'])}/"
        if count := len(study["figures"]):
            yield f" figures: {count} in {plain(study['figures_folder'])}/"
    yield from chain([""] * bool(summaries), legend(summaries))
    if outputs["runs"]:
        yield from _verdicts(outputs["runs"])
    if outputs["stages"]:
        yield from ("\n[bold]Time by stage[/]", _times(outputs["stages"]))
    if outputs["paper"] is not None:
        yield f"\n[bold]Paper    {plain(outputs['paper'])}[/]"
        if since:
            is_new = (graph.workdir / PAPER).stat().st_mtime >= since
            state = "made" if is_new else "all outputs were up to date; checked"
            yield f"{state} in {duration(time.time() - since)}"


def _study(graph: Graph, name: str) -> dict[str, Any]:
    """Return the title of a study, and the paths of its results and figures.

    Results have the order of the configuration's runs, as in the paper; others follow by name.
    """
    is_external, titles = name in graph.externals, graph.config.titles
    order = {run: place for place, run in enumerate(graph.config.study(name).runs)}
    folder = "external" if is_external else "results"
    results, figures = (graph.workdir / parent / name for parent in (folder, "figures"))
    runs = sorted(
        (file.parent.name for file in results.glob(f"[!.]*/{SUMMARY}")),
        key=lambda run: (order.get(run, len(order)), run),
    )
    owner = graph.config.study(name).belongs_to
    parts = [] if owner is None else [titles[owner]]
    parts += ["external images"] * is_external
    return {
        "study": name,
        "title": ": ".join([*parts, titles[name]]),
        "results_folder": shown_path(results),
        "results": [{"run": run, "folder": shown_path(results / run)} for run in runs],
        "figures_folder": shown_path(figures),
        "figures": [shown_path(file) for file in sorted(figures.glob("*.pdf"))],
    }


def _times(stages: Sequence[dict[str, Any]]) -> Table:
    """Return the time of each stage over all studies, the longest first; chapters are one stage."""
    jobs, seconds = Counter[str](), Counter[str]()
    for row in stages:
        name = stage_of(row["stage"])
        jobs[name] += row["jobs"]
        seconds[name] += row["seconds"]
    table = Table("stage", Column("jobs", justify="right"), box=None)
    table.add_column("seconds", justify="right")
    for name, total in seconds.most_common():
        table.add_row(name, str(jobs[name]), f"{total:.1f}")
    return table


def _verdicts(runs: Sequence[dict[str, Any]]) -> Iterator[RenderableType]:
    """Yield speedup and difference in accuracy of each run (rows of ``verdicts.csv``)."""
    yield "\n[bold]How far, and at what cost[/]"
    for title in dict.fromkeys(row["title"] for row in runs):
        yield f"[bold]{plain(str(title))}[/]"
        # Columns of the same width in all studies, and lines of 80 letters for short names.
        table = Table(Column("run", min_width=16), Column("speedup", min_width=19), box=None)
        table.add_column("accuracy, points", min_width=21)
        table.add_column("verdict")
        for row in runs:
            if row["title"] == title:
                name = row["run"] + ("†" if row["stand_in"] else "")
                speedup, change = _interval(row, "speedup", ".2f"), _interval(row, "change", "+.1f")
                verdict = str(row["verdict"])
                table.add_row(plain(name), speedup, change * (verdict != BASELINE), verdict)
        yield table
    yield "Speedup over one device of the same kind, accuracy minus the baseline's."
    yield "With 95 % intervals; without: one seed, or equal predictions."
    if any(row["stand_in"] for row in runs):
        yield f"† {STAND_IN}: its speedup says nothing about GPUs."


def _interval(row: dict[str, Any], column: str, form: str) -> str:
    """Return a value and its interval, if it has one."""
    value, low, high = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
    text = "" if math.isnan(value) else format(value, form)
    return text + (f" ({low:{form}} to {high:{form}})" if low < high else "")
