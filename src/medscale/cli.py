"""The command line: check what is planned, run a study, show what it made."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medscale.errors import MedscaleError, tell_user
from medscale.files import read_json
from medscale.provenance import ROOT

Scale = Annotated[str, typer.Option(help="full or demo; a configfile that names one wins")]
Only = Annotated[str | None, typer.Option(help="studies to carry out, separated by commas; all without it")]
ConfigFile = Annotated[Path | None, typer.Option(help="a YAML file of changes to config.yaml, such as your own data")]
Since = Annotated[float, typer.Option(hidden=True)]

Kind = Annotated[str, typer.Argument(help="source kind: smdg, skin, isic2017, rsna, folder")]

main = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data = typer.Typer(no_args_is_help=True, help="Downloads: what is there, what is missing, how to get it.")
main.add_typer(data, name="data")
out = Console(highlight=False, soft_wrap=True)
MARK = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "error": "[red bold]error[/]"}


def app() -> None:
    """Entry point; a MedscaleError becomes one message."""
    tell_user(main)()


@main.command()
def check(scale: Scale = "full", only: Only = None, configfile: ConfigFile = None, cluster: bool = False) -> None:
    """Data, splits, configuration, disk, memory and devices against the planned runs; seconds, offline."""
    from medscale.config import merge
    from medscale.preflight import examine
    from medscale.slurm import SITE
    from medscale.workflow import Study

    changes = _changes(scale, only, configfile)
    if cluster:
        changes = merge(_read(ROOT / SITE), changes)
    findings = examine(Study(changes), on_cluster=cluster)
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(MARK[finding.level], finding.what, finding.says)
    out.print(table)
    if any(finding.level == "error" for finding in findings):
        raise MedscaleError("the planned runs cannot be carried out here; see the lines marked error above")


@main.command()
def study(scale: Scale = "demo", only: Only = None, configfile: ConfigFile = None) -> None:
    """Check, run everything from raw images to the paper, and name what was made."""
    start = time.time()
    changes = _changes(scale, only, configfile)
    check(changes["scale"], only, configfile)
    command = [sys.executable, "-m", "snakemake", "--quiet", "rules", "reason", "host"]
    command += ["--configfile", str(configfile.resolve())] if configfile else []
    command += ["--config", *(f"{key}={changes[key]}" for key in ("scale", "only") if key in changes)]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise MedscaleError("the study stopped: the lines above name the job and its log. The same command goes on")
    summary(scale, only, configfile, since=start)


@main.command()
def summary(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    since: Since = 0,
) -> None:
    """Name the paper, figures and results that are there, and how long each stage took."""
    from medscale.evaluate import one_line
    from medscale.timing import stage_times
    from medscale.workflow import Study

    study = Study(_changes(scale, only, configfile))
    times = Table("study", "stage", "jobs", "seconds", title="Time by stage", box=None)
    for row in stage_times(study.workdir).itertuples():
        times.add_row(str(row.study), str(row.stage), str(row.jobs), f"{row.seconds:.1f}")
    out.print(times)
    for name in study.studies:
        out.print(f"\n[bold]{study.config.study(name).title}[/]")
        for result in sorted((study.workdir / "results" / name).glob("*/summary.json")):
            out.print(f"  {one_line(read_json(result))}")
        figures = sorted((study.workdir / "figures" / name).glob("*.pdf"))
        out.print(f"  figures  {_near(study.workdir / 'figures' / name)}/: " + ", ".join(f.stem for f in figures))
    paper = study.workdir / "paper" / "paper.pdf"
    if paper.exists():
        out.print(f"\n[bold]Paper    {_near(paper)}[/]")
        if since:
            made = "made" if paper.stat().st_mtime >= since else "nothing was left to do; looked at"
            out.print(f"{made} in {time.time() - since:.0f} s")


@data.command("check")
def data_check(kind: Kind, folder: Path) -> None:
    """Is a download complete, and what is odd about it? Names and tables only: seconds, offline."""
    from medscale.data.check import check as compare

    report = compare(kind, folder)
    counts = Table("split", "class", "there", "expected", box=None, pad_edge=False)
    for count in report.counts:
        expected = "" if count.expected is None else f"{count.expected:,}"
        there = f"{count.there:,}" if count.enough else f"[red bold]{count.there:,}[/]"
        counts.add_row(count.split, escape(count.label), there, expected)
    if report.counts:
        out.print(counts, "")
    lines = Table(box=None, show_header=False, pad_edge=False)
    for line in report.lines:
        lines.add_row(MARK[line.level], escape(line.says))
    out.print(lines)
    if not report.complete:
        raise MedscaleError(f"{folder} is not complete for source kind {kind}; see the lines above")


@data.command("fetch")
def data_fetch(
    kind: Kind,
    to: Annotated[
        Path | None, typer.Option(help="raw folder; without it that of the study which reads the kind")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="carry it out: download, unpack, check")] = False,
) -> None:
    """Print the official download command of a dataset and what it needs; with --run carry it out."""
    from medscale.data.download import fetch, instructions
    from medscale.log import set_up

    folder = to or _raw_folder(kind)
    if not run:
        out.print(escape(instructions(kind, folder)))
        return
    set_up()
    fetch(kind, folder)
    data_check(kind, folder)


def _raw_folder(kind: str) -> Path:
    """Raw folder of the study in config.yaml that reads a source kind."""
    from medscale.workflow import Study

    study = Study({})
    names = [n for n, s in study.config.studies.items() if s.source.kind == kind and study.config.owner(n) == n]
    if not names:
        raise MedscaleError(f"no study in config.yaml reads source kind {kind!r}: say the raw folder with --to")
    return study.raw(names[0])


def _changes(scale: str, only: str | None, configfile: Path | None) -> dict[str, Any]:
    """Changes to config.yaml as Snakemake would see them; a scale in the file wins over the option."""
    changes = _read(configfile) if configfile is not None else {}
    return {"scale": scale} | changes | ({"only": only} if only else {})


def _read(configfile: Path) -> dict[str, Any]:
    try:
        changes = yaml.safe_load(configfile.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise MedscaleError(f"{configfile} cannot be read: {error}") from None
    if not isinstance(changes, dict):
        raise MedscaleError(f"{configfile}: expected a mapping of settings, found {type(changes).__name__}")
    return changes


def _near(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    app()
