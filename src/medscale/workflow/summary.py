"""`medscale summary`: the paper, figures and results of a study, and how long each stage took."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.console import RenderableType
from rich.table import Table

from medscale.base.code import shown_path
from medscale.base.files import read_json, read_table
from medscale.base.log import plain
from medscale.base.timing import stage_times
from medscale.evaluate.summary import one_line
from medscale.report.marks import STAND_IN
from medscale.report.names import label
from medscale.report.result.reading import records
from medscale.report.synthesis.runs import BASELINE
from medscale.workflow.graph import Graph


def summarize(graph: Graph, since: float) -> Iterator[RenderableType]:
    """Yield the lines and tables for the terminal.

    Args:
        graph: the study.
        since: start of the command that made the study (Unix time); 0 for no such line.
    """
    for name in graph.studies:
        yield f"\n[bold]{plain(graph.config.study(name).title)}[/]"
        for result in sorted((graph.workdir / "results" / name).glob("*/summary.json")):
            yield f"  {plain(one_line(read_json(result)))}"
        folder = graph.workdir / "figures" / name
        figures = ", ".join(figure.stem for figure in sorted(folder.glob("*.pdf")))
        yield f"  figures  {plain(f'{shown_path(folder)}/: {figures}')}"
    times = Table("study", "stage", "jobs", "seconds", title="\nTime by stage", box=None)
    for row in stage_times(graph.workdir).itertuples():
        times.add_row(str(row.study), str(row.stage), str(row.jobs), f"{row.seconds:.1f}")
    yield times
    verdicts = graph.workdir / "tables" / "verdicts.csv"
    if verdicts.exists():
        yield from _verdicts(read_table(verdicts), graph.studies)
    paper = graph.workdir / "paper" / "paper.pdf"
    if paper.exists():
        yield f"\n[bold]Paper    {plain(shown_path(paper))}[/]"
        if since:
            state = (
                "made" if paper.stat().st_mtime >= since else "nothing was left to do; looked at"
            )
            yield f"{state} in {time.time() - since:.0f} s"


def _verdicts(runs: pd.DataFrame, studies: Sequence[str]) -> Iterator[RenderableType]:
    """Yield speedup and difference in accuracy of each run of the studies (``verdicts.csv``)."""
    table = Table(
        "run", "speedup", "accuracy (points)", box=None, title="\nHow far, and at what cost"
    )
    for title, part in runs[runs["study"].isin(studies)].groupby("title", sort=False):
        table.add_row(f"[bold]{plain(str(title))}[/]")
        for row in records(part):
            name = label(row["run"]) + ("†" if row["stand_in"] else "")
            table.add_row(f"  {plain(name)}", _interval(row, "speedup", ".2f"), _accuracy(row))
    yield table
    yield "Speedup over one device of the same kind; accuracy minus the baseline's; 95 % intervals."
    if runs["stand_in"].any():
        yield f"† {STAND_IN}: its speedup says nothing about GPUs."


def _accuracy(row: dict[str, Any]) -> str:
    verdict = str(row["verdict"])
    return verdict if verdict == BASELINE else f"{_interval(row, 'change', '+.1f')}: {verdict}"


def _interval(row: dict[str, Any], column: str, form: str) -> str:
    """Return a value and its interval, if it has one."""
    value, low, high = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
    text = "" if math.isnan(value) else format(value, form)
    return text + (f" ({low:{form}} to {high:{form}})" if low < high else "")
