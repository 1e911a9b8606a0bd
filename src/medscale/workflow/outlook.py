"""The end of a dry run in at most 15 lines: jobs, cost, missing data, outputs to be made again."""

from __future__ import annotations

import atexit
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medscale.base.code import shown_path
from medscale.base.errors import MedscaleError, print_error
from medscale.base.text import amount, terminal
from medscale.data.kind import load_kind
from medscale.data.settings import Source
from medscale.resources.jobs import stage_of
from medscale.workflow.causes import FIRST_TIME
from medscale.workflow.graph import Graph
from medscale.workflow.why import Explanation, counted, explanation_of

MOST_CAUSES = 6  # that are shown; the others are counted
MINUTES_OF_HOURS = 120  # from which a duration is given in hours


def at_exit(graph: Graph, workflow: Any) -> None:
    """Print the outlook when Snakemake's process ends, if it was a dry run without ``--quiet all``.

    Snakemake calls its own hooks (``onstart``, ``onsuccess``) in no dry run.
    """
    atexit.register(_print, graph, workflow)


def facts(graph: Graph, explanation: Explanation) -> dict[str, Any]:
    """Return the explanation of a dry run for JSON, with the missing folders of raw images."""
    folders = _missing(graph, explanation).items()
    missing = [{"folder": shown_path(folder), "kind": kind} for folder, kind in folders]
    return {**vars(explanation), "missing_data": missing}


def lines(graph: Graph, explanation: Explanation) -> Iterator[str]:
    """Yield the lines on the jobs that would run."""
    again = dict(explanation.causes)
    first, total = again.pop(FIRST_TIME, Counter()).total(), explanation.stages.total()
    if total:
        yield f"{amount(total, 'job')} would run; nothing was run"
        yield f"  jobs   {counted(_stages(explanation.stages))}"
        yield f"  cost   {_cost(explanation)}, by the cost model (medscale size)"
    else:
        yield "nothing would run: all outputs are up to date"
    yield f"  data   {_data(graph, explanation)}"
    if first:
        verb = "makes" if first == 1 else "make"
        yield f"  first  {amount(first, 'job')} {verb} outputs that were never made"
    if again:
        yield "  again  outputs are made again, with all that depends on them, because"
        for cause, stages in list(again.items())[:MOST_CAUSES]:
            yield f"         - {cause} ({counted(_stages(stages))})"
        if len(again) > MOST_CAUSES:
            rest = len(again) - MOST_CAUSES
            yield f"         - and {amount(rest, 'more cause')}"
    if total:
        listing, reasons = graph.snakemake("-np"), graph.medscale("why", "TARGET")
        yield f"  more   {listing} prints each job; {reasons} names all causes"


def _print(graph: Graph, workflow: Any) -> None:
    # Snakemake makes its scheduler when the graph of jobs is complete.
    if not workflow.dryrun or getattr(workflow, "scheduler", None) is None:
        return
    if "ALL" in {value.name for value in workflow.output_settings.quiet or ()}:
        return
    os.chdir(graph.workdir)  # as in the rules; Snakemake has left the folder
    try:
        explanation = explanation_of(graph, workflow.dag, "all")
    except MedscaleError as error:
        print_error(error)
        return
    sys.stdout.flush()
    for line in lines(graph, explanation):
        print(terminal(line), file=sys.stderr)


def _stages(stages: Counter[str]) -> Counter[str]:
    """Return the numbers of jobs with all chapters of the report as one stage, the most first."""
    merged: Counter[str] = Counter()
    for name, count in stages.items():
        merged[stage_of(name)] += count
    return Counter(dict(merged.most_common()))


def _cost(explanation: Explanation) -> str:
    minutes = explanation.minutes
    time = f"{minutes:.1f} minutes" if minutes < MINUTES_OF_HOURS else f"{minutes / 60:,.1f} hours"
    return (
        f"about {time} one after the other, {explanation.device_hours:,.2f} device-hours, "
        f"{explanation.money:,.2f} {explanation.currency}"
    )


def _sources(graph: Graph, explanation: Explanation) -> dict[Path, Source]:
    """Return the source of each raw folder: of the jobs' studies, without jobs of all studies."""
    return {
        graph.config.raw(name): graph.config.study(graph.config.owner(name)).source
        for name in explanation.studies or [*graph.studies, *graph.externals]
    }


def _missing(graph: Graph, explanation: Explanation) -> dict[Path, str]:
    """Return the dataset kind of each of these folders that is missing and not generated."""
    sources = _sources(graph, explanation).items()
    return {f: source.kind for f, source in sources if not source.synthetic and not f.exists()}


def _data(graph: Graph, explanation: Explanation) -> str:
    """Return which raw folders are missing, and how to get them."""
    if graph.restored is not None:
        return "none is needed: the study was restored from a crate"
    if missing := _missing(graph, explanation):
        folders = ", ".join(f"{shown_path(folder)} (kind {k})" for folder, k in missing.items())
        downloads = any(load_kind(name).download is not None for name in missing.values())
        remedy = "medscale data fetch KIND says how to get it" if downloads else "set source.path"
        return f"missing: {folders}; {remedy}"
    synthetic = [source.synthetic for source in _sources(graph, explanation).values()]
    if any(synthetic):
        is_mixed = not all(synthetic)
        return "synthetic images are generated" + (", real ones are present" if is_mixed else "")
    return "all raw folders are present"
