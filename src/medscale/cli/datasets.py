"""Commands on downloads of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from medscale.base.code import shown_path
from medscale.base.errors import MedscaleError
from medscale.base.log import plain
from medscale.cli.options import ConfigFile, Kind, Scale, changes_of, out, print_findings


def check(kind: Kind, folder: Path) -> None:
    """Check whether a download is complete, by names and tables only; seconds, offline."""
    from medscale.data.check import check as compare

    report = compare(kind, folder)
    counts = Table("split", "class", "present", "expected", box=None, pad_edge=False)
    for count in report.counts:
        expected = "" if count.expected is None else f"{count.expected:,}"
        images = f"{count.images:,}" if count.complete else f"[red bold]{count.images:,}[/]"
        counts.add_row(count.split, plain(count.label), images, expected)
    if report.counts:
        out.print(counts, "")
    print_findings((finding.level, finding.message) for finding in report.findings)
    if not report.complete:
        raise MedscaleError(
            f"{folder} is not complete for dataset kind {kind}; see the lines above"
        )


def fetch(
    kind: Kind,
    to: Annotated[Path | None, typer.Option(help="raw folder; default: that of the study")] = None,
    run: Annotated[bool, typer.Option("--run", help="download, unpack and check")] = False,
) -> None:
    """Print how to download a dataset, and what that needs; with --run carry it out."""
    from medscale.base.log import set_up
    from medscale.data.download import fetch as download
    from medscale.data.download import instructions

    folder = to or _raw_folder(kind)
    if not run:
        out.print(instructions(kind, folder), markup=False)
        return
    set_up()
    download(kind, folder)
    check(kind, folder)


def croissant(
    studies: Annotated[
        list[str] | None, typer.Argument(help="studies of the configuration; default: the active")
    ] = None,
    scale: Scale = "full",
    configfile: ConfigFile = None,
) -> None:
    """Describe the images of studies in Croissant: data/<study>/croissant.json; offline."""
    from medscale.workflow.graph import Graph

    graph = Graph(changes_of(scale, None, configfile))
    settings = {name: graph.config.study(name) for name in studies or graph.studies}
    from medscale.exchange.croissant import write

    for name, section in settings.items():
        path = write(name, section, graph.workdir / "data" / name)
        out.print(f"{plain(shown_path(path))} conforms to Croissant 1.1")


def _raw_folder(kind: str) -> Path:
    """Return the raw folder of the study in config.yaml that reads a dataset kind."""
    from medscale.workflow.graph import Graph

    graph = Graph({})
    names = [
        name
        for name, study in graph.config.studies.items()
        if study.source.kind == kind and graph.config.owner(name) == name
    ]
    if not names:
        raise MedscaleError(
            f"no study in config.yaml reads dataset kind {kind!r}: name the raw folder with --to"
        )
    return graph.raw(names[0])
