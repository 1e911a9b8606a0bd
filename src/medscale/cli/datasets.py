"""Commands on downloads of datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.table import Table

from medscale.base import paths
from medscale.base.code import shown_path
from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.cli.completion import studies_like
from medscale.cli.options import ConfigFile, Kind, Scale, study_graph
from medscale.cli.printing import AsJson, findings_text, out, print_facts
from medscale.data.kind import check_kind

if TYPE_CHECKING:
    from medscale.data.check import Report


def check(
    kind: Kind,
    folder: Annotated[Path, typer.Argument(help="raw folder, as unpacked")],
    as_json: AsJson = False,
) -> None:
    """Check whether a download is complete, by names and tables only; seconds, offline."""
    check_kind(kind)
    folder = paths.folder(folder, "name the raw folder of the download")
    from medscale.data.check import check as compare

    report = compare(kind, folder)
    facts = {"kind": kind, "folder": folder, "complete": report.complete, **vars(report)}
    print_facts(facts, _report(report), as_json)
    if not report.complete:
        raise MedscaleError(
            f"{folder} is not complete for dataset kind {kind}; see the lines above"
        )


def _report(report: Report) -> Iterator[RenderableType]:
    counts = Table("split", "class", "present", "expected", box=None, pad_edge=False)
    for count in report.counts:
        expected = "" if count.expected is None else f"{count.expected:,}"
        images = f"{count.images:,}" if count.complete else f"[red bold]{count.images:,}[/]"
        counts.add_row(count.split, plain(count.label), images, expected)
    if report.counts:
        yield counts
        yield ""
    yield from findings_text((finding.level, finding.message) for finding in report.findings)


def fetch(
    kind: Kind,
    to: Annotated[Path | None, typer.Option(help="raw folder; default: that of the study")] = None,
    run: Annotated[bool, typer.Option("--run", help="download, unpack and check")] = False,
) -> None:
    """Print how to download a dataset, and what that needs; with --run carry it out."""
    check_kind(kind)
    if to is not None and to.is_file():
        raise MedscaleError(f"{to} is a file; name the raw folder")
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
        list[str] | None,
        typer.Argument(
            help="studies of the configuration; default: the active", autocompletion=studies_like
        ),
    ] = None,
    scale: Scale = "full",
    configfile: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Describe the images of studies in Croissant: data/<study>/croissant.json; offline."""
    graph = study_graph(scale, None, configfile)
    names = map(graph.config.data_of, studies or graph.studies)
    settings = {name: graph.config.study(name) for name in names}
    from medscale.exchange.croissant import write

    folder = graph.workdir / "data"
    paths = [write(name, s, folder / name, graph.options) for name, s in settings.items()]
    files = [shown_path(path) for path in paths]
    lines = (f"{plain(file)} conforms to Croissant 1.1" for file in files)
    print_facts({"files": files, "conforms_to": "Croissant 1.1"}, lines, as_json)


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
    return graph.config.raw(names[0])
