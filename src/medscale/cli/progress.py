"""Commands on a running study: how far it is, and the logs that belong to a target."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from medscale.base.code import ROOT, shown_path
from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.cli.completion import results_like
from medscale.cli.options import ConfigFile, Only, demo_hint, study_graph, unlock_command
from medscale.cli.printing import AsJson, print_facts

if TYPE_CHECKING:
    from medscale.resources.slurm import QueuedJob
    from medscale.workflow.graph import Graph
    from medscale.workflow.progress.state import Recorded


LastScale = Annotated[
    str | None, typer.Option(help="full or demo; default: that of the study started last")
]


def status(
    scale: LastScale = None,
    only: Only = None,
    configfile: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a running study is: stages, running jobs, time left, failures, SLURM jobs."""
    from medscale.resources import slurm
    from medscale.resources.submit import place_of
    from medscale.workflow.progress.state import read

    graph = _graph(scale, only, configfile)
    workdir = graph.workdir
    recorded = read(workdir)
    queued: list[QueuedJob] = []
    if shutil.which("squeue"):
        try:
            queued = slurm.queue(ROOT, place_of(workdir))
        except MedscaleError as error:
            # SLURM's programs can be installed where there is no cluster.
            if recorded is not None and any(job.title for job in recorded.state.jobs.values()):
                note = str(error).splitlines()[0]
                typer.echo(f"medscale: note: SLURM's queue is not known: {note}", err=True)
    if recorded is None and not queued and (workdir / "logs").is_dir():
        raise MedscaleError(
            f"no progress is recorded in {shown_path(workdir)}: only `medscale study`, and "
            "Snakemake with a profile or `--logger medscale`, record it; the outputs: "
            f"`{graph.medscale('summary')}`"
        )
    if recorded is None and not queued:
        hint = demo_hint("status", scale or "full", configfile)
        if not hint:
            own = graph.medscale("study") if configfile else "medscale study"
            hint = f"; `{own}` starts {'it' if configfile else 'the demo'}"
            hint += "" if configfile else ", and --configfile names a study of your own images"
        place = "this folder" if workdir == ROOT else shown_path(workdir)
        raise MedscaleError(f"no study has been started in {place}{hint}")
    print_facts(_facts(recorded, queued), _text(recorded, queued, graph), as_json)


def logs(
    target: Annotated[
        str,
        typer.Argument(
            help="such as results/skin/ddp_2gpu, skin, or paper; default: all",
            autocompletion=results_like,
        ),
    ] = "",
    scale: LastScale = None,
    configfile: ConfigFile = None,
    lines: Annotated[int, typer.Option(min=1, help="last lines of each log")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show the last lines of the logs that belong to a target, the newest log last."""
    from medscale.resources.slurm import LOGS
    from medscale.resources.submit import place_of
    from medscale.workflow.progress.logs import excerpt, is_path_elsewhere, logs_of

    graph = _graph(scale, None, configfile, target)
    workdir, name = graph.workdir, graph.target(target)
    if is_path_elsewhere(name, graph.config.studies):
        raise MedscaleError(
            f"{target} is not an output in {shown_path(workdir)}, the folder of this study; name "
            "another study by --configfile or --scale"
        )
    files = list(logs_of(workdir, ROOT / LOGS, place_of(workdir), name, graph.config.data_of))
    if not files:
        raise MedscaleError(
            f"no log belongs to {target or 'this study'} below {shown_path(workdir / 'logs')}; "
            "nothing has been started for it"
        )
    parts = {shown_path(file): excerpt(file, lines) for file in files}
    print_facts({"logs": parts}, _log_text(parts), as_json)


def _graph(scale: str | None, only: str | None, configfile: Path | None, target: str = "") -> Graph:
    """Return the checked configuration of a study; without scale and file, of the one begun last.

    A target that is a path in the workdir of one scale selects it.

    ``medscale study`` without a file is at demo scale, and Snakemake without a profile at full
    scale; each has a workdir, in which the other's logs are not looked for.
    """
    from medscale.workflow.progress.state import FILE

    scales = [scale] if scale else ["full"] if configfile else ["full", "demo"]
    graphs = [study_graph(name, only, configfile, arguments=[target]) for name in scales]
    return min(
        graphs,
        key=lambda graph: (
            len(Path(graph.target(target)).parts),
            -_last_change(graph.workdir / FILE),
        ),
    )


def _last_change(file: Path) -> float:
    """Return the Unix time of the last change of a file; 0 where there is none."""
    return file.stat().st_mtime if file.is_file() else 0.0


def _log_text(parts: dict[str, list[str]]) -> Iterator[str]:
    for name, texts in parts.items():
        yield f"\n[bold]{plain(name)}[/]"
        yield from (f"  {plain(text)}" for text in texts or ["(empty)"])


def _facts(recorded: Recorded | None, queued: list[QueuedJob]) -> dict[str, Any]:
    """Return the document of ``--json``; times in seconds, ``begun`` and ``ended`` Unix times."""
    facts: dict[str, Any] = {"slurm_jobs": queued}
    if recorded is not None:
        from medscale.workflow.progress.display import running_lines

        state, now = recorded.state, recorded.state.ended or time.time()
        facts |= state.facts() | {"host": recorded.host, "process": recorded.process}
        facts |= {
            "is_running": recorded.is_alive,
            "left_s": state.left_s(now),
            "running": list(running_lines(state, now)) if state.ended is None else [],
            "stages": {
                stage: {"jobs": len(jobs), "finished": sum(job.is_finished for job in jobs)}
                for stage, jobs in state.stages().items()
            },
        }
    return facts


def _text(
    recorded: Recorded | None, queued: list[QueuedJob], graph: Graph
) -> Iterator[RenderableType]:
    """Yield the lines for a person."""
    if recorded is not None:
        yield from _recorded_text(recorded, graph)
    if queued:
        yield "\n[bold]SLURM jobs[/]"
        for job in queued:
            texts = (job.number, job.state.lower(), job.elapsed, job.place, job.title)
            yield plain("  " + "  ".join(texts))


def _recorded_text(recorded: Recorded, graph: Graph) -> Iterator[RenderableType]:
    from medscale.workflow.progress.display import failure_lines, headline, left_text, running_lines

    state, now = recorded.state, recorded.state.ended or time.time()
    yield f"[bold]{plain(shown_path(graph.workdir))}: {plain(headline(state, now))}[/]"
    if recorded.was_killed:
        command = unlock_command(graph)
        end = ", after the lock that it left is removed:" if command else "."
        yield f"Its process is gone without an end: it was killed. The same command goes on{end}"
        if command:
            yield plain(f"  {command}")
    elif recorded.is_alive is None:
        yield plain(f"It was started on {recorded.host}; whether it runs cannot be seen from here.")
    table = Table.grid(padding=(0, 2))
    for stage, jobs in state.stages().items():
        finished = sum(job.is_finished for job in jobs)
        table.add_row(f"  {stage}", f"{finished} of {len(jobs)}", left_text(state, jobs, now))
    yield table
    if state.ended is None:
        yield from (plain(f"  now: {line}") for line in running_lines(state, now))
    for job in state.failed():
        yield from (plain(f"  {line}") for line in failure_lines(state, job))
