"""`medscale summary`: the paper, figures and results of a study, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from medscale.base.code import shown_path
from medscale.base.files import read_json
from medscale.base.log import plain
from medscale.base.timing import stage_times
from medscale.evaluate.summary import one_line
from medscale.workflow.graph import Graph


def summarize(graph: Graph, since: float) -> Iterator[RenderableType]:
    """Yield what the terminal shows.

    Args:
        graph: the study.
        since: when the command was started that made the study (Unix time); 0 for no such line.
    """
    times = Table("study", "stage", "jobs", "seconds", title="Time by stage", box=None)
    for row in stage_times(graph.workdir).itertuples():
        times.add_row(str(row.study), str(row.stage), str(row.jobs), f"{row.seconds:.1f}")
    yield times
    for name in graph.studies:
        yield f"\n[bold]{plain(graph.config.study(name).title)}[/]"
        for result in sorted((graph.workdir / "results" / name).glob("*/summary.json")):
            yield f"  {plain(one_line(read_json(result)))}"
        folder = graph.workdir / "figures" / name
        figures = ", ".join(figure.stem for figure in sorted(folder.glob("*.pdf")))
        yield f"  figures  {plain(f'{shown_path(folder)}/: {figures}')}"
    paper = graph.workdir / "paper" / "paper.pdf"
    if paper.exists():
        yield f"\n[bold]Paper    {plain(shown_path(paper))}[/]"
        if since:
            state = (
                "made" if paper.stat().st_mtime >= since else "nothing was left to do; looked at"
            )
            yield f"{state} in {time.time() - since:.0f} s"
