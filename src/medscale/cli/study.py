"""Commands on a whole study: check, run, explain, and list the outputs."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.table import Table

from medscale.base.code import ROOT, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.log import plain
from medscale.base.text import terminal
from medscale.cli.options import (
    Cluster,
    ConfigFile,
    Only,
    Scale,
    Since,
    changes_of,
    layers_of,
    out,
    print_findings,
    run_snakemake,
)


def check(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    cluster: Cluster = False,
) -> None:
    """Check data, settings, disk, memory and devices for the planned runs; seconds, offline."""
    from medscale.workflow.graph import Graph

    graph = Graph(changes_of(scale, only, configfile, cluster))
    from medscale.workflow.preflight import examine

    findings = examine(graph, on_cluster=cluster)
    print_findings((finding.level, finding.subject, finding.text) for finding in findings)
    if any(finding.level == "error" for finding in findings):
        raise MedscaleError(
            "the planned runs cannot be carried out here; see the lines marked error above"
        )


def study(scale: Scale = "demo", only: Only = None, configfile: ConfigFile = None) -> None:
    """Check, run everything from raw images to the paper, and list the outputs."""
    start = time.time()
    changes = changes_of(scale, only, configfile)
    check(changes["scale"], only, configfile)
    if not run_snakemake([], changes, configfile):
        raise MedscaleError(
            "the study stopped: the lines above name the job and its log. The same command goes on"
        )
    summary(scale, only, configfile, since=start)


def config(
    study: Annotated[str | None, typer.Option(help="settings of this study alone")] = None,
    scale: Annotated[str | None, typer.Option(help="full or demo")] = None,
    only: Only = None,
    configfile: ConfigFile = None,
    cluster: Cluster = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="a mapping of each setting to value and origin")
    ] = False,
) -> None:
    """Print the settings in force and the origin of each value: a file, another study, a default.

    All settings and their limits are described in docs/settings.md.
    """
    from medscale.config.origins import in_force

    settings = in_force(ROOT / "config.yaml", layers_of(scale, only, configfile, cluster), study)
    if as_json:
        rows = {
            setting.name: {"value": setting.value, "origin": setting.origin} for setting in settings
        }
        print(terminal(json.dumps(rows, indent=2, ensure_ascii=False), lines=True))
        return
    texts = [(setting.name, setting.text, setting.origin) for setting in settings]
    widths = [min(max(len(row[column]) for row in texts), 50) for column in (0, 1)]
    for name, value, origin in texts:
        print(terminal(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}"))


def why(
    target: Annotated[str, typer.Argument(help="such as results/skin/ddp_amp_4gpu, or paper")],
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    cluster: Cluster = False,
    image: Annotated[
        bool, typer.Option("--image", help="for jobs in the image (--sdm apptainer)")
    ] = False,
) -> None:
    """Explain why a target would be made again: the changes, the jobs that follow, their cost."""
    changes = changes_of(scale, only, configfile, cluster)
    from medscale.workflow.why import explain

    for line in explain(changes, target, in_image=image or cluster).lines():
        out.print(line, markup=False)


def profile(study: str, run: str, scale: Scale = "full", configfile: ConfigFile = None) -> None:
    """Profile a run's training steps: where their time goes, and what bounds it."""
    from medscale.workflow.graph import Graph

    changes, target = changes_of(scale, None, configfile), f"profiled/{study}/{run}"
    graph = Graph(changes, arguments=[target])
    if not run_snakemake([target], changes, configfile):
        raise MedscaleError(
            f"{study} {run} was not profiled: the lines above name the job and its log"
        )
    from medscale.report.profiling.reading import read_profiled

    folder = graph.workdir / "profiled" / study / run
    profiled = read_profiled(folder)
    ranks = [f"rank {rank}" for rank in range(profiled.ranks)]
    shares = Table("kind", *ranks, title="Share of the time, %", box=None)
    for kind in profiled.kinds["kind"].unique():
        shares.add_row(kind, *[f"{100 * share:.1f}" for share in profiled.share(kind)])
    out.print(shares)
    milliseconds, images = 1e3 * profiled.numbers.seconds, profiled.images_per_second
    bound = plain(profiled.about["bottleneck"]["says"])
    out.print(f"\n{milliseconds:.1f} ms a step, {images:.0f} images/s: {bound}")
    out.print(f"traces for Perfetto and tables: {shown_path(folder)}/", markup=False)


def summary(
    scale: Scale = "full", only: Only = None, configfile: ConfigFile = None, since: Since = 0
) -> None:
    """Name the paper, figures and results of a study, and how long each stage took."""
    from medscale.workflow.graph import Graph

    graph = Graph(changes_of(scale, only, configfile))
    from medscale.workflow.summary import summarize

    for part in summarize(graph, since):
        out.print(part)


def size(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    machine: Annotated[
        list[str] | None, typer.Option(help="kind of cost.devices and number: a100:4")
    ] = None,
    images: Annotated[
        int, typer.Option(help="number of images of a large study, whose needs are printed")
    ] = 10_000_000,
    gpus: Annotated[int, typer.Option(help="number of GPUs for these images")] = 64,
) -> None:
    """Print the needs of the study (hours, money, disk, jobs), and the limits of its growth."""
    from medscale.workflow.graph import Graph

    config = Graph(changes_of(scale, only, configfile)).config
    from medscale.resources import sizing

    machines = [sizing.Machine.parse(text) for text in machine or ("a100:4", "h200:1")]
    text = sizing.text(config, machines, ROOT / "docs" / "scale.csv", images, gpus)
    print(terminal(text, lines=True), end="")
