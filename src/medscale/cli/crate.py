"""The commands on crates: ``medscale crate`` packs; ``restore`` and ``compare`` are below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from medscale.base import paths
from medscale.base.code import ROOT, shown_path
from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.base.text import listed, subject
from medscale.cli.options import ConfigFile, Only, Scale, changes_of, study_graph
from medscale.cli.printing import AsJson, print_facts

ADVICE = "name a crate: the .zip archive or folder that `medscale crate` wrote"
OUTDATED = (
    "settings, code or data have changed since these files were made, and the crate holds them as "
    "they are; `medscale why paper` with the same options names the changes"
)
NOT_KNOWN = (
    "whether the present settings and code would make the same files is not known, since raw "
    "images are not here"
)
Packed = Annotated[Path, typer.Argument(help="the crate: .zip archive or folder", metavar="CRATE")]
crate = typer.Typer(invoke_without_command=True)


@crate.callback()
def pack(
    context: typer.Context,
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="folder or .zip archive; default: crate/ in the study's folder"),
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="pack the trained networks too")
    ] = False,
    images: Annotated[
        bool, typer.Option("--images", help="pack figures with images and the paper too")
    ] = False,
    file_names: Annotated[
        bool, typer.Option("--file-names", help="pack the audit, which names image files, too")
    ] = False,
    agent: Annotated[
        str | None, typer.Option(help="name of the person who ran the study, published with it")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--check", help="validate it against its profiles (roc-validator)")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pack code, records and results as a Workflow Run RO-Crate; refuses data of patients.

    Weights, figures with images, and file names stay out unless an option names them.
    """
    if context.invoked_subcommand is not None:
        return
    graph = study_graph(scale, only, configfile)
    if to is not None and to.suffix == ".zip":
        paths.new_file(to)
    from medscale.workflow.crate import export
    from medscale.workflow.crate.describe import counted
    from medscale.workflow.crate.kinds import ON_REQUEST

    folder = to or graph.workdir / "crate"
    flags = dict(zip(ON_REQUEST, (weights, images, file_names), strict=True))
    request = [kind for kind, is_requested in flags.items() if is_requested]
    files, left_out = export(graph, folder, request=request, agent=agent, check=verify)
    from medscale.workflow.freshness import is_current

    is_up_to_date = is_current(graph, changes_of(scale, only, configfile))
    facts = {
        "crate": shown_path(folder),
        "files": files,
        "left_out": left_out,  # number of files by kind
        "conforms_to": "Workflow Run Crate 0.5" if verify else None,  # null: not checked
        "up_to_date": is_up_to_date,  # null: not known
    }
    absent = f"; left out: {counted(left_out)}" if left_out else ""
    valid = f"; it conforms to {facts['conforms_to']}" if verify else ""
    lines = [f"[bold]{plain(shown_path(folder))}[/]: {files} files{absent}{valid}"]
    if not is_up_to_date:
        lines.append(plain(f"note: {OUTDATED if is_up_to_date is False else NOT_KNOWN}"))
    print_facts(facts, lines, as_json)


@crate.command()
def restore(
    path: Packed,
    to: Annotated[
        Path | None, typer.Option(help="new folder; default: work/restored in the project's folder")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lay a crate out so that `snakemake paper` makes its report without images and GPUs.

    Files are checked against the crate's checksums. Code in the crate is not run: the report is
    made by the code of this checkout.
    """
    source = paths.existing_path(path, ADVICE)
    from medscale.workflow.crate.restore import restore as lay_out

    folder = to or ROOT / "work" / "restored"
    restored = lay_out(source, folder)
    facts = {"folder": shown_path(folder), **vars(restored)}
    lines = _restored(facts, _report_command(folder), str(path))
    print_facts(facts, lines, as_json)


@crate.command()
def compare(
    path: Packed,
    folder: Annotated[Path, typer.Argument(help="the folder that it was restored to")],
    as_json: AsJson = False,
) -> None:
    """Compare figures, tables and facts of a crate with those made from it, byte by byte."""
    source = paths.existing_path(path, ADVICE)
    folder = paths.existing_path(folder, "name the folder that the crate was restored to")
    from medscale.workflow.crate.restore import compare as compare_with

    result = compare_with(source, folder)
    print_facts(vars(result), _compared(vars(result)), as_json)
    if result.different or result.absent:
        differing, missing = len(result.different), len(result.absent)
        remedy = "other code or packages make other numbers (docs/how-to/restore.md)"
        if result.absent:
            remedy = f"make the report first: {_report_command(folder)}"
        raise MedscaleError(
            f"the report in {shown_path(folder)} is not that of the crate: "
            f"{subject(differing, 'file', 'differ')}, "
            f"{missing} {'is' if missing == 1 else 'are'} not made; {remedy}"
        )


def _report_command(folder: Path) -> str:
    """Return the command that makes the report of a restored study, for the project's folder."""
    is_inside = folder.resolve().is_relative_to(ROOT)
    place = shown_path(folder) if is_inside else str(folder.resolve())
    return f"snakemake --cores all paper --config workdir={place}"


def _restored(facts: dict[str, Any], command: str, crate_path: str) -> Iterator[str]:
    """Yield the text about a restored study."""
    name, studies = facts["folder"], ", ".join(facts["studies"])
    yield f"[bold]{plain(name)}[/]: {facts['files']} files of {plain(studies)}"
    if facts["left_out"]:
        files = plain(listed(facts["left_out"]))
        yield f"left out, because they show images and are not in the crate: {files}"
    if facts["code"]:
        files = plain(listed(facts["code"]))
        yield f"numbers can differ, since {len(facts['code'])} files of code do: {files}"
    yield "make the report, in the project's folder, then compare it with the crate's:"
    yield f"  {plain(command)}"
    yield plain(f"  medscale crate compare {crate_path} {name}")


def _compared(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the text about a comparison."""
    yield f"equal, byte by byte: {len(facts['equal'])} files of the report"
    for key, text in (
        ("left_out", "left out with the images"),
        ("different", "different"),
        ("absent", "not made"),
    ):
        if facts[key]:
            yield plain(f"{text}: {listed(facts[key])}")
