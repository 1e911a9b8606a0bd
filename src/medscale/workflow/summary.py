"""`medscale summary`: the paper, figures and results of a study, and how long each stage took."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from medscale.base.code import ROOT, shown_path
from medscale.base.console import plain
from medscale.base.files import read_json, read_table
from medscale.base.paths import SUMMARY
from medscale.base.timing import stage_times
from medscale.evaluate.summary import one_line
from medscale.report.marks import STAND_IN
from medscale.report.names import label
from medscale.report.result.reading import records
from medscale.report.synthesis.runs import BASELINE
from medscale.workflow.graph import Graph

PAPER = Path("paper", "paper.pdf")  # below the workdir


def facts(graph: Graph) -> dict[str, Any]:
    """Return what exists of the active studies: results, verdicts, files and times of stages.

    ``speedup`` is over one device of the same kind, ``change`` the difference in accuracy from the
    baseline in percentage points, both with the ends of their 95 % intervals (``_low, _high``).
    """
    verdicts, paper = graph.workdir / "tables" / "verdicts.csv", graph.workdir / PAPER
    rows = records(read_table(verdicts)) if verdicts.exists() else []
    times = stage_times(graph.workdir)
    names = {"", *graph.with_variants, *graph.externals}  # the paper belongs to no single study
    return {
        "workdir": shown_path(graph.workdir),
        "studies": [_study(graph, name) for name in graph.studies],
        "runs": [row for row in rows if row["study"] in graph.studies],
        "stages": times[times["study"].isin(names)].to_dict("records"),
        "paper": shown_path(paper) if paper.exists() else None,
    }


def lines(graph: Graph, since: float) -> Iterator[RenderableType]:
    """Yield the lines and tables for the terminal; results come first, times last.

    Args:
        graph: the study.
        since: start of the command that made the study (Unix time); 0 for no such line.
    """
    outputs = facts(graph)
    for study in outputs["studies"]:
        yield f"\n[bold]{plain(study['title'])}[/]"
        for result in study["results"]:
            yield f"  {plain(one_line(read_json(ROOT / result['folder'] / SUMMARY)))}"
        if not study["results"]:
            yield f"  no results yet in {plain(study['results_folder'])}/"
        if study["figures"]:
            names = ", ".join(Path(figure).stem for figure in study["figures"])
            yield f"  figures  {plain(study['figures_folder'])}/: {plain(names)}"
    if outputs["runs"]:
        yield from _verdicts(outputs["runs"])
    if outputs["stages"]:
        times = Table("study", "stage", "jobs", "seconds", box=None)
        for row in outputs["stages"]:
            times.add_row(row["study"], row["stage"], str(row["jobs"]), f"{row['seconds']:.1f}")
        yield from ("\n[bold]Time by stage[/]", times)
    if outputs["paper"] is not None:
        yield f"\n[bold]Paper    {plain(outputs['paper'])}[/]"
        if since:
            is_new = (graph.workdir / PAPER).stat().st_mtime >= since
            state = "made" if is_new else "nothing was left to do; looked at"
            yield f"{state} in {time.time() - since:.0f} s"


def _study(graph: Graph, name: str) -> dict[str, Any]:
    """Return the title of a study, and the paths of its results and figures."""
    results, figures = (graph.workdir / folder / name for folder in ("results", "figures"))
    return {
        "study": name,
        "title": graph.config.study(name).title,
        "results_folder": shown_path(results),
        "results": [
            {"run": file.parent.name, "folder": shown_path(file.parent)}
            for file in sorted(results.glob(f"*/{SUMMARY}"))
        ],
        "figures_folder": shown_path(figures),
        "figures": [shown_path(file) for file in sorted(figures.glob("*.pdf"))],
    }


def _verdicts(runs: Sequence[dict[str, Any]]) -> Iterator[RenderableType]:
    """Yield speedup and difference in accuracy of each run (rows of ``verdicts.csv``)."""
    yield "\n[bold]How far, and at what cost[/]"
    table = Table("run", "speedup", "accuracy (points)", box=None)
    for title in dict.fromkeys(row["title"] for row in runs):
        table.add_row(f"[bold]{plain(str(title))}[/]")
        for row in runs:
            if row["title"] == title:
                name = label(row["run"]) + ("†" if row["stand_in"] else "")
                table.add_row(f"  {plain(name)}", _interval(row, "speedup", ".2f"), _accuracy(row))
    yield table
    yield "Speedup over one device of the same kind; accuracy minus the baseline's; 95 % intervals."
    if any(row["stand_in"] for row in runs):
        yield f"† {STAND_IN}: its speedup says nothing about GPUs."


def _accuracy(row: dict[str, Any]) -> str:
    verdict = str(row["verdict"])
    return verdict if verdict == BASELINE else f"{_interval(row, 'change', '+.1f')}: {verdict}"


def _interval(row: dict[str, Any], column: str, form: str) -> str:
    """Return a value and its interval, if it has one."""
    value, low, high = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
    text = "" if math.isnan(value) else format(value, form)
    return text + (f" ({low:{form}} to {high:{form}})" if low < high else "")
