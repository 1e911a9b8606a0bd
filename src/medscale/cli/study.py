"""Commands on a whole study: check, run, explain, and list the outputs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from medscale.base.code import ROOT, shown_path
from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.cli.completion import runs_like, studies_like
from medscale.cli.options import (
    Cluster,
    ConfigFile,
    Only,
    Scale,
    changes_of,
    demo_hint,
    files_of,
    layers_of,
    run_snakemake,
    scale_of_path,
    study_graph,
    unlock_command,
)
from medscale.cli.printing import AsJson, findings_text, print_facts

if TYPE_CHECKING:
    from medscale.workflow.finding import Finding
    from medscale.workflow.graph import Graph


def check(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    cluster: Cluster = False,
    no_image: Annotated[
        bool, typer.Option("--no-image", help="with --cluster: jobs run by --sdm env-modules")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check data, settings, disk, memory and devices for the planned runs; seconds, offline."""
    graph = study_graph(scale, only, configfile, cluster)
    findings = _findings(graph, cluster, in_image=not no_image)
    facts = {
        "scale": graph.config.scale,
        "studies": graph.studies,
        "ready": not _has_errors(findings),
        "findings": findings,
    }
    print_facts(facts, _findings_text(findings), as_json)
    _refuse_errors(findings)


def _findings(graph: Graph, cluster: bool = False, in_image: bool = True) -> list[Finding]:
    from medscale.workflow.preflight import examine

    return examine(graph, on_cluster=cluster, in_image=in_image)


def _findings_text(findings: list[Finding]) -> Iterable[str]:
    return findings_text((finding.level, finding.subject, finding.text) for finding in findings)


def _has_errors(findings: list[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)


def _refuse_errors(findings: list[Finding]) -> None:
    if _has_errors(findings):
        raise MedscaleError(
            "the planned runs cannot be carried out here; see the lines marked error above"
        )


def study(
    scale: Annotated[
        str | None, typer.Option(help="full or demo; default: full with a configfile, demo without")
    ] = None,
    only: Only = None,
    configfile: ConfigFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="print jobs, cost and causes, and run nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check, run everything from raw images to the paper, and list the outputs."""
    start = time.time()
    scale = scale or ("demo" if configfile is None else "full")
    changes = changes_of(scale, only, configfile)
    if dry_run:
        print_facts(*_outlook(study_graph(scale, only, configfile), changes), as_json)
        return
    graph = study_graph(changes["scale"], only, configfile)
    findings = _findings(graph)
    if not as_json or _has_errors(findings):
        print_facts({"findings": findings}, _findings_text(findings), as_json)
    _refuse_errors(findings)
    if not run_snakemake([], changes, configfile):
        raise _stopped(graph)
    from medscale.workflow import summary

    facts = {**summary.facts(graph), "findings": findings} if as_json else {}
    print_facts(facts, summary.lines(graph, start), as_json)


def _stopped(graph: Graph) -> MedscaleError:
    """Return the error for a study whose jobs did not all succeed."""
    if (command := unlock_command(graph)) is not None:
        return MedscaleError(f"{shown_path(graph.workdir)} is locked: {_holder(graph, command)}")
    return MedscaleError(
        "the study stopped: the lines above name the job and its log. The same command goes on"
    )


def _holder(graph: Graph, command: str) -> str:
    """Return who holds the lock of a study's folder, as far as it is recorded, and what to do.

    ``command`` removes the lock.
    """
    from medscale.workflow.progress.state import read

    remedy = f"remove the lock, and give the same command again: {command}"
    with suppress(MedscaleError):  # a damaged record
        recorded = read(graph.workdir)
        if recorded is not None and recorded.is_alive:
            return (
                f"another study runs in it, in process {recorded.process}; wait for its end "
                f"(`{graph.medscale('status')}` shows how far it is), then give the same command "
                "again"
            )
        if recorded is not None and recorded.was_killed:
            return f"the study that ran in it was killed. If no other runs, {remedy}"
    return f"another study runs in it, or one was killed. If none runs, {remedy}"


def _outlook(graph: Graph, changes: dict[str, Any]) -> tuple[dict[str, Any], Iterator[str]]:
    """Return facts and lines on the jobs that would run."""
    from medscale.workflow import outlook
    from medscale.workflow.dag import planned
    from medscale.workflow.why import explanation_of

    with planned(graph, changes, "all", in_image=False) as dag:
        explanation = explanation_of(graph, dag, "all")
    return outlook.facts(graph, explanation), map(plain, outlook.lines(graph, explanation))


def config(
    study: Annotated[
        str | None, typer.Option(help="settings of this study alone", autocompletion=studies_like)
    ] = None,
    scale: Annotated[str | None, typer.Option(help="full or demo")] = None,
    only: Only = None,
    configfile: ConfigFile = None,
    cluster: Cluster = False,
    as_json: AsJson = False,
) -> None:
    """Print the settings in force and the origin of each value: a file, another study, a default.

    All settings and their limits are described in docs/settings.md.
    """
    from medscale.config.origins import in_force
    from medscale.engine.models.names import check_model

    layers = layers_of(scale, only, configfile, cluster)
    settings = in_force(ROOT / "config.yaml", layers, study, check_model)
    texts = [(setting.name, setting.text, setting.origin) for setting in settings]
    widths = [min(max(len(row[n]) for row in texts), most) for n, most in enumerate((50, 12))]
    lines = (
        plain(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
        for name, value, origin in texts
    )
    facts = {
        setting.name: {"value": setting.value, "origin": setting.origin} for setting in settings
    }
    print_facts(facts, lines, as_json)


def why(
    target: Annotated[str, typer.Argument(help="such as results/skin/ddp_amp_4gpu, or paper")],
    scale: Annotated[
        str | None, typer.Option(help="full or demo; default: demo for a path in its folder")
    ] = None,
    only: Only = None,
    configfile: ConfigFile = None,
    cluster: Cluster = False,
    image: Annotated[
        bool, typer.Option("--image", help="for jobs in the image (--sdm apptainer)")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain why a target would be made again: the changes, the jobs that follow, their cost."""
    scale = scale or ("full" if configfile else scale_of_path(target))
    changes = changes_of(scale, only, configfile, cluster)
    files = files_of(configfile, cluster)
    from medscale.workflow.why import explain

    explanation = explain(changes, target, in_image=image or cluster, files=files)
    facts = {"up_to_date": not explanation.stages, **vars(explanation)}
    print_facts(facts, map(plain, explanation.lines()), as_json)


def profile(
    study: Annotated[str, typer.Argument(help="its study", autocompletion=studies_like)],
    run: Annotated[
        str, typer.Argument(help="a run, such as ddp_amp_4gpu", autocompletion=runs_like)
    ],
    scale: Scale = "full",
    configfile: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Profile a run's training steps: where their time goes, and what bounds it."""
    changes, target = changes_of(scale, None, configfile), f"profiled/{study}/{run}"
    graph = study_graph(scale, None, configfile, arguments=[target])
    if not run_snakemake([target], changes, configfile):
        raise MedscaleError(
            f"{study} {run} was not profiled: the lines above name the job and its log"
        )
    from medscale.report.profiling.reading import read_profiled

    folder = graph.workdir / "profiled" / study / run
    profiled = read_profiled(folder)
    kinds = profiled.kinds["kind"].unique()
    facts = {
        "study": study,
        "run": run,
        "folder": shown_path(folder),
        "seconds_per_step": profiled.numbers.seconds,
        "images_per_second": profiled.images_per_second,
        "bottleneck": profiled.about["bottleneck"]["says"],
        # Shares of the traced time, a value for each rank.
        "shares": {kind: profiled.share(kind).tolist() for kind in kinds},
    }
    print_facts(facts, _profile_lines(facts), as_json)


def _profile_lines(facts: dict[str, Any]) -> Iterator[RenderableType]:
    ranks = max(len(shares) for shares in facts["shares"].values())
    columns = [f"rank {rank}" for rank in range(ranks)]
    table = Table("kind", *columns, title="Share of the time, %", box=None)
    for kind, shares in facts["shares"].items():
        table.add_row(kind, *[f"{100 * share:.1f}" for share in shares])
    yield table
    speed = f"{1e3 * facts['seconds_per_step']:.1f} ms a step, "
    speed += f"{facts['images_per_second']:.0f} images/s"
    yield f"\n{speed}: {plain(facts['bottleneck'])}"
    yield f"traces for Perfetto and tables: {plain(facts['folder'])}/"


def summary(
    scale: Scale = "full", only: Only = None, configfile: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Name the results, figures and paper of a study, and how long each stage took."""
    graph = study_graph(scale, only, configfile)
    from medscale.workflow import summary

    facts = summary.facts(graph)
    is_empty = not any(study["results"] for study in facts["studies"])
    hint = demo_hint("summary", scale, configfile) if is_empty and not as_json else ""
    hints = ["\n" + hint.removeprefix("; ")] if hint else []
    print_facts(facts, chain(summary.lines(graph), hints), as_json)


def size(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    machine: Annotated[
        list[str] | None, typer.Option(help="kind of cost.devices and number: a100:4")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="number of images of a large study, whose needs are printed")
    ] = 10_000_000,
    gpus: Annotated[int, typer.Option(min=1, help="number of GPUs for these images")] = 64,
    as_json: AsJson = False,
) -> None:
    """Print the needs of the study (hours, money, disk, jobs), and the limits of its growth."""
    config = study_graph(scale, only, configfile).config
    from medscale.resources import sizing

    machines = [sizing.Machine.parse(text) for text in machine or ("a100:4", "h200:1")]
    arguments = (config, machines, ROOT / "docs" / "scale.csv", images, gpus)

    def text() -> Iterator[str]:
        yield plain(sizing.text(*arguments).rstrip("\n"), lines=True)

    print_facts(sizing.facts(*arguments), text(), as_json)
