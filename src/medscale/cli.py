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

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError, tell_user
from medscale.base.files import read_json

Scale = Annotated[str, typer.Option(help="full or demo; a configfile that names one wins")]
Only = Annotated[
    str | None, typer.Option(help="studies to carry out, separated by commas; all without it")
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="a YAML file of changes to config.yaml, such as your own data")
]
Since = Annotated[float, typer.Option(hidden=True)]

Kind = Annotated[str, typer.Argument(help="source kind: smdg, skin, isic2017, rsna, folder")]

main = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
data = typer.Typer(
    no_args_is_help=True, help="Downloads: what is there, what is missing, how to get it."
)
main.add_typer(data, name="data")
out = Console(highlight=False, soft_wrap=True)
MARK = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "error": "[red bold]error[/]"}


def app() -> None:
    """Entry point; a MedscaleError becomes one message."""
    tell_user(main)()


@main.command()
def check(
    scale: Scale = "full", only: Only = None, configfile: ConfigFile = None, cluster: bool = False
) -> None:
    """Data, splits, configuration, disk, memory and devices against the planned runs; seconds, offline."""
    from medscale.config.configuration import merge
    from medscale.resources.slurm import SITE
    from medscale.workflow.graph import Graph
    from medscale.workflow.preflight import examine

    changes = _changes(scale, only, configfile)
    if cluster:
        changes = merge(_read(ROOT / SITE), changes)
    findings = examine(Graph(changes), on_cluster=cluster)
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(MARK[finding.level], finding.what, finding.says)
    out.print(table)
    if any(finding.level == "error" for finding in findings):
        raise MedscaleError(
            "the planned runs cannot be carried out here; see the lines marked error above"
        )


@main.command()
def study(scale: Scale = "demo", only: Only = None, configfile: ConfigFile = None) -> None:
    """Check, run everything from raw images to the paper, and name what was made."""
    start = time.time()
    changes = _changes(scale, only, configfile)
    check(changes["scale"], only, configfile)
    command = [sys.executable, "-m", "snakemake", "--quiet", "rules", "reason", "host"]
    command += ["--configfile", str(configfile.resolve())] if configfile else []
    command += [
        "--config",
        *(f"{key}={changes[key]}" for key in ("scale", "only") if key in changes),
    ]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise MedscaleError(
            "the study stopped: the lines above name the job and its log. The same command goes on"
        )
    summary(scale, only, configfile, since=start)


@main.command()
def serve(
    results: Annotated[
        list[Path], typer.Argument(help="result folders, or folders that hold some")
    ],
    host: Annotated[
        str, typer.Option(help="address to listen on; other machines reach it only with a key")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="file with the key that callers must send")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="a name of this machine that callers may use")
    ] = None,
    seed: Annotated[
        str, typer.Option(help="replicates that predict: best, all (their mean), or a number")
    ] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    workers: Annotated[int, typer.Option(help="processes that predict; each holds all models")] = 1,
    decoders: Annotated[int, typer.Option(help="processes that decode images")] = 2,
    batch: Annotated[int, typer.Option(help="most images through a network at once")] = 32,
    megabytes: Annotated[float, typer.Option(help="largest request")] = 32,
    megapixels: Annotated[float, typer.Option(help="largest image")] = 50,
    images: Annotated[int, typer.Option(help="most images in a request")] = 16,
    queue: Annotated[int, typer.Option(help="most images accepted and not yet answered")] = 256,
    rate: Annotated[float, typer.Option(help="requests a second of one caller; 0: no limit")] = 20,
) -> None:
    """A web page and an HTTP API for trained runs, on this machine alone unless told otherwise."""
    given = dict(locals())
    from medscale.serve.http.start import serve as start

    start(given | {"hosts": given.pop("name") or ()}, out.print)


@main.command()
def profile(study: str, run: str, scale: Scale = "full", configfile: ConfigFile = None) -> None:
    """Profile a run's training steps, and say where their time goes and what bounds it."""
    changes = _changes(scale, None, configfile)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        f"profiled/{study}/{run}",
        "--quiet",
        "rules",
        "reason",
        "host",
    ]
    command += ["--configfile", str(configfile.resolve())] if configfile else []
    command += ["--config", f"scale={changes['scale']}"]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise MedscaleError(
            f"{study} {run} was not profiled: the lines above name the job and its log"
        )
    from medscale.report.profiled import read_profiled
    from medscale.workflow.graph import Graph

    folder = Graph(changes).workdir / "profiled" / study / run
    found = read_profiled(folder)
    shares = Table(
        "kind",
        *[f"rank {rank}" for rank in range(found.ranks)],
        title="Share of the time, %",
        box=None,
    )
    for kind in found.kinds["kind"].unique():
        shares.add_row(kind, *[f"{100 * share:.1f}" for share in found.share(kind)])
    out.print(shares)
    milliseconds, images = 1e3 * found.numbers.seconds, found.images_per_second
    out.print(
        f"\n{milliseconds:.1f} ms a step, {images:.0f} images/s: {escape(found.about['bottleneck']['says'])}"
    )
    out.print(f"traces for Perfetto and tables: {_near(folder)}/")


@main.command()
def summary(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    since: Since = 0,
) -> None:
    """Name the paper, figures and results that are there, and how long each stage took."""
    from medscale.base.timing import stage_times
    from medscale.evaluate.summary import one_line
    from medscale.workflow.graph import Graph

    graph = Graph(_changes(scale, only, configfile))
    times = Table("study", "stage", "jobs", "seconds", title="Time by stage", box=None)
    for row in stage_times(graph.workdir).itertuples():
        times.add_row(str(row.study), str(row.stage), str(row.jobs), f"{row.seconds:.1f}")
    out.print(times)
    for name in graph.studies:
        out.print(f"\n[bold]{graph.config.study(name).title}[/]")
        for result in sorted((graph.workdir / "results" / name).glob("*/summary.json")):
            out.print(f"  {one_line(read_json(result))}")
        figures = sorted((graph.workdir / "figures" / name).glob("*.pdf"))
        out.print(
            f"  figures  {_near(graph.workdir / 'figures' / name)}/: "
            + ", ".join(f.stem for f in figures)
        )
    paper = graph.workdir / "paper" / "paper.pdf"
    if paper.exists():
        out.print(f"\n[bold]Paper    {_near(paper)}[/]")
        if since:
            made = "made" if paper.stat().st_mtime >= since else "nothing was left to do; looked at"
            out.print(f"{made} in {time.time() - since:.0f} s")


@main.command()
def crate(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", help="folder or .zip archive; crate/ in the study's folder without it"
        ),
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="pack the trained networks too")
    ] = False,
    agent: Annotated[
        str | None, typer.Option(help="who ran the study, if it is to be told")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--check", help="hold it against its profiles (roc-validator)")
    ] = False,
) -> None:
    """Pack code, records, results and paper as a Workflow Run RO-Crate; images stay out."""
    from medscale.workflow.crate import export
    from medscale.workflow.graph import Graph

    graph = Graph(_changes(scale, only, configfile))
    place = to or graph.workdir / "crate"
    files = export(graph, place, weights=weights, agent=agent, check=verify)
    valid = "; it conforms to Workflow Run Crate 0.5" if verify else ""
    out.print(f"[bold]{_near(place)}[/]: {files} files{valid}")


@main.command()
def predict(
    result: Annotated[
        Path, typer.Argument(help="a result folder, such as results/skin/ddp_amp_4gpu")
    ],
    images: Annotated[
        list[Path], typer.Argument(help="image files, or folders of them; DICOM too")
    ],
    csv: Annotated[Path | None, typer.Option(help="write all predictions to this file")] = None,
    seed: Annotated[
        str | None, typer.Option(help="a replicate's seed, or 'all' for the mean of all")
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(help="age=61,sex=female for all images, or a CSV with a column `path`"),
    ] = None,
    calibrated: Annotated[
        bool, typer.Option(help="probabilities by the fitted temperature")
    ] = False,
    device: Annotated[str | None, typer.Option(help="such as cpu or cuda:0")] = None,
    batch: Annotated[int, typer.Option(min=1, help="images at a time")] = 32,
) -> None:
    """Classes and probabilities, or boxes, of new images by a trained run."""
    from medscale.base.files import write_csv
    from medscale.base.log import set_up
    from medscale.serve import console

    set_up()
    predictor = console.opened(result, seed, device)
    found = console.predict(
        predictor, images, console.known(metadata), batch_size=batch, calibrated=calibrated
    )
    table = predictor.table(found)
    out.print(console.shown(predictor, found))
    if csv is not None:
        write_csv(csv, table)
        out.print(f"{len(found)} images in {escape(str(csv))}")
    if failed := sum(one.error is not None for one in found):
        raise MedscaleError(
            f"{failed} of {len(found)} images could not be read; the column `error` says why"
        )


@main.command()
def export(
    result: Annotated[
        Path, typer.Argument(help="a result folder, such as results/skin/ddp_amp_4gpu")
    ],
    to: Annotated[str, typer.Option(help="onnx (32 bit), fp16, int8 or tensorrt")] = "onnx",
    to_file: Annotated[
        Path | None, typer.Option("--out", help="without it <study>-<run>.<format>.onnx here")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="a folder of images: what int8 is calibrated on, and the file is checked on"
        ),
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="a replicate's seed, or 'all' for the mean of all")
    ] = None,
) -> None:
    """Write a trained run as an ONNX file, checked against PyTorch."""
    from medscale.base.log import set_up
    from medscale.serve import console, files

    set_up()
    for line in files.export(console.opened(result, seed, "cpu"), to, to_file, images):
        out.print(escape(line))


@main.command()
def size(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    machine: Annotated[
        list[str] | None, typer.Option(help="kind of cost.devices and number: a100:4")
    ] = None,
    images: Annotated[
        int, typer.Option(help="what a study would need that has so many")
    ] = 10_000_000,
    gpus: Annotated[int, typer.Option(help="… on so many GPUs")] = 64,
) -> None:
    """What the planned study needs (hours, money, disk, files, jobs), and what breaks as it grows; as Markdown."""
    from medscale.resources import sizing
    from medscale.workflow.graph import Graph

    config = Graph(_changes(scale, only, configfile)).config
    machines = [sizing.Machine.parse(text) for text in machine or ("a100:4", "h200:1")]
    print(sizing.text(config, machines, ROOT / "docs" / "scale.csv", images, gpus), end="")


@main.command()
def show(
    results: Annotated[list[Path], typer.Argument(help="result folders, results/<study>/<run>")],
) -> None:
    """Print results in the terminal: metrics with intervals, classes, operating points, subgroups, times."""
    from medscale.report.show import show as parts

    for number, folder in enumerate(results):
        out.print("", end="\n" if number else "")
        for part in parts(folder):
            out.print(part)


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
        Path | None,
        typer.Option(help="raw folder; without it that of the study which reads the kind"),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="carry it out: download, unpack, check")
    ] = False,
) -> None:
    """Print the official download command of a dataset and what it needs; with --run carry it out."""
    from medscale.base.log import set_up
    from medscale.data.download import fetch, instructions

    folder = to or _raw_folder(kind)
    if not run:
        out.print(escape(instructions(kind, folder)))
        return
    set_up()
    fetch(kind, folder)
    data_check(kind, folder)


def _raw_folder(kind: str) -> Path:
    """Raw folder of the study in config.yaml that reads a source kind."""
    from medscale.workflow.graph import Graph

    graph = Graph({})
    names = [
        n
        for n, s in graph.config.studies.items()
        if s.source.kind == kind and graph.config.owner(n) == n
    ]
    if not names:
        raise MedscaleError(
            f"no study in config.yaml reads source kind {kind!r}: say the raw folder with --to"
        )
    return graph.raw(names[0])


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
        raise MedscaleError(
            f"{configfile}: expected a mapping of settings, found {type(changes).__name__}"
        )
    return changes


def _near(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    app()
