"""The command line: check what is planned, run a study, show and serve what it made."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Table

from medscale.base import paths
from medscale.base.code import ROOT, shown_path
from medscale.base.errors import MedscaleError, tell_user
from medscale.base.log import Terminal, plain
from medscale.base.text import terminal
from medscale.data.kind import kind_names
from medscale.serve.formats.registry import FORMATS, by_name

if TYPE_CHECKING:
    from medscale.config.layers import Layer

COMMAND_LINE = "command line"
Scale = Annotated[str, typer.Option(help="full or demo; a configfile that names one wins")]
Only = Annotated[str | None, typer.Option(help="active studies, separated by commas; default: all")]
ConfigFile = Annotated[
    Path | None, typer.Option(help="a YAML file of changes to config.yaml, such as your own data")
]
Cluster = Annotated[bool, typer.Option("--cluster", help="for jobs on the SLURM cluster")]
Since = Annotated[float, typer.Option(hidden=True)]
Kind = Annotated[str, typer.Argument(help=f"dataset kind: {', '.join(kind_names())}")]
Result = Annotated[Path, typer.Argument(help="a result folder, such as results/skin/ddp_amp_4gpu")]
Seed = Annotated[
    str | None, typer.Option(help="a replicate's seed, or 'all' for the mean of all replicates")
]

main = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
data = typer.Typer(no_args_is_help=True, help="Downloads: are they complete, how to get them.")
main.add_typer(data, name="data")
out = Terminal()
MARK = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "error": "[red bold]error[/]"}


def app() -> None:
    """Run the command line; a MedscaleError becomes one message."""
    tell_user(main)()


@main.command()
def check(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    cluster: Cluster = False,
) -> None:
    """Check data, settings, disk, memory and devices for the planned runs; seconds, offline."""
    from medscale.workflow.graph import Graph

    graph = Graph(_changes(scale, only, configfile, cluster))
    from medscale.workflow.preflight import examine

    findings = examine(graph, on_cluster=cluster)
    _print_findings((finding.level, finding.subject, finding.text) for finding in findings)
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
    if not _snakemake([], changes, configfile):
        raise MedscaleError(
            "the study stopped: the lines above name the job and its log. The same command goes on"
        )
    summary(scale, only, configfile, since=start)


@main.command("config")
def show_config(
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

    settings = in_force(ROOT / "config.yaml", _layers(scale, only, configfile, cluster), study)
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


@main.command()
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
    """Say why a target would be made again: what changed, what follows, what it costs."""
    changes = _changes(scale, only, configfile, cluster)
    from medscale.workflow.why import explain

    for line in explain(changes, target, in_image=image or cluster).lines():
        out.print(line, markup=False)


@main.command()
def serve(
    results: Annotated[list[Path], typer.Argument(help="result folders, or folders of them")],
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
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="address of a proxy whose X-Forwarded-For names the caller"),
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
    connections: Annotated[int, typer.Option(help="most open connections")] = 512,
    rate: Annotated[float, typer.Option(help="requests a second of one caller; 0: no limit")] = 20,
) -> None:
    """A web page and an HTTP API for trained runs, on this machine alone unless told otherwise."""
    given = dict(locals())
    paths.usable_below(results)
    from medscale.serve.http.start import serve as start

    options = given | {"hosts": given.pop("name") or (), "proxies": given.pop("proxy") or ()}
    start(options, lambda text: out.print(text, markup=False))


@main.command()
def profile(study: str, run: str, scale: Scale = "full", configfile: ConfigFile = None) -> None:
    """Profile a run's training steps: where their time goes, and what bounds it."""
    from medscale.workflow.graph import Graph

    changes, target = _changes(scale, None, configfile), f"profiled/{study}/{run}"
    graph = Graph(changes, arguments=[target])
    if not _snakemake([target], changes, configfile):
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


@main.command()
def summary(
    scale: Scale = "full", only: Only = None, configfile: ConfigFile = None, since: Since = 0
) -> None:
    """Name the paper, figures and results of a study, and how long each stage took."""
    from medscale.workflow.graph import Graph

    graph = Graph(_changes(scale, only, configfile))
    from medscale.workflow.summary import summarize

    for part in summarize(graph, since):
        out.print(part)


@main.command()
def crate(
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
        str | None, typer.Option(help="name of who ran the study, to be published with it")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--check", help="validate it against its profiles (roc-validator)")
    ] = False,
) -> None:
    """Pack code, records and results as a Workflow Run RO-Crate; refused with data of patients.

    Weights, figures with images, and file names stay out unless an option names them.
    """
    from medscale.workflow.graph import Graph

    graph = Graph(_changes(scale, only, configfile))
    from medscale.workflow.crate import export
    from medscale.workflow.crate.describe import counted
    from medscale.workflow.crate.kinds import ON_REQUEST

    folder = to or graph.workdir / "crate"
    flags = dict(zip(ON_REQUEST, (weights, images, file_names), strict=True))
    request = [kind for kind, is_requested in flags.items() if is_requested]
    files, left_out = export(graph, folder, request=request, agent=agent, check=verify)
    valid = "; it conforms to Workflow Run Crate 0.5" if verify else ""
    stays = f"; left out: {counted(left_out)}" if left_out else ""
    out.print(f"[bold]{plain(shown_path(folder))}[/]: {files} files{stays}{valid}")


@main.command()
def leaks(
    paths: Annotated[list[Path], typer.Argument(help="files or folders that are to be published")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="a study's data folder, such as data/skin: its patients and files"),
    ] = None,
) -> None:
    """Look for ids of DICOM and of patients, addresses, home folders and hosts before publishing.

    For result folders, model cards, environment.json and whatever else leaves the machine.
    """
    from medscale.workflow.crate import scan

    for folder in data or []:
        if not (folder / "index.parquet").is_file():
            raise MedscaleError(f"{folder} has no index.parquet; name the data folder of a study")
    names = scan.names_of_studies(data or [], file_names=False)
    for path in paths:
        if not path.exists():
            raise MedscaleError(f"{path} does not exist")
        environments = sorted(path.rglob("environment.json")) if path.is_dir() else []
        scan.refuse(scan.scan(path, [*names, scan.hosts(environments)]), str(path))
        out.print(plain(f"{shown_path(path)}: nothing found"))
    if too_short := sum(group.too_short for group in names):
        out.print(f"{too_short} names are too short to be told from other words")


@main.command()
def predict(
    result: Result,
    images: Annotated[
        list[Path], typer.Argument(help="image files, or folders of them; DICOM too")
    ],
    csv: Annotated[Path | None, typer.Option(help="write all predictions to this file")] = None,
    seed: Seed = None,
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
    """Predict classes and probabilities, or boxes, of new images by a trained run."""
    paths.usable(result)
    for image in images:
        paths.existing_image(image)
    if metadata is not None and "=" not in metadata:
        advice = "--metadata is neither a CSV table nor facts such as age=61"
        paths.existing(Path(metadata), advice)
    from medscale.base.files import write_csv
    from medscale.base.log import set_up
    from medscale.serve import predict_command as command

    set_up()
    predictor = command.load_result(result, seed, device)
    values = command.parse_metadata(metadata)
    predictions = command.predict(
        predictor, images, values, batch_size=batch, calibrated=calibrated
    )
    table = predictor.table(predictions)
    out.print(command.result_table(predictor, predictions))
    if note := command.sentence_on_frames(predictions):
        out.print(plain(note))
    if csv is not None:
        write_csv(csv, table)
        out.print(f"{len(predictions)} images in {plain(str(csv))}")
    if failed := sum(prediction.error is not None for prediction in predictions):
        raise MedscaleError(
            f"{failed} of {len(predictions)} images could not be read; the column `error` says why"
        )


@main.command()
def evaluate(
    result: Result,
    folder: Annotated[Path, typer.Argument(help="labelled images that the run never saw")],
    to: Annotated[Path | None, typer.Option("--out", help="the new folder")] = None,
    kind: Annotated[str, typer.Option(help=f"layout: {', '.join(kind_names())}")] = "folder",
    patient: Annotated[str | None, typer.Option(help="as source.patient of a study")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="THEIRS=OURS: a class that has another name here")
    ] = None,
    prevalence: Annotated[
        list[str] | None, typer.Option(help="CLASS=SHARE where the run is to be used")
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="name of the set; default: the folder's")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="index.parquet of the training, to search copies")
    ] = None,
    device: Annotated[str | None, typer.Option(help="such as cpu or cuda:0")] = None,
) -> None:
    """Evaluate a trained run on images of another origin, with nothing fitted again."""
    from medscale.base.log import set_up
    from medscale.serve import evaluate_command as command

    set_up()
    path, written = command.evaluate(
        result,
        folder,
        to,
        kind=kind,
        patient=patient,
        labels=label or (),
        prevalence=prevalence or (),
        title=title,
        training_index=index,
        device=device,
    )
    for part in command.lines(written):
        out.print(part)
    out.print(f"figures, tables and predictions: {plain(shown_path(path))}/")


@main.command()
def export(
    result: Result,
    to: Annotated[str, typer.Option(help=f"format: {', '.join(FORMATS)}")] = "onnx",
    to_file: Annotated[
        Path | None, typer.Option("--out", help="default: <study>-<run>.<format>.onnx here")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="a folder of images, to check the file on, and to calibrate a format that needs it"
        ),
    ] = None,
    seed: Seed = None,
) -> None:
    """Write a trained run as an ONNX file, checked against PyTorch."""
    paths.usable(result)
    by_name(to)
    if images is not None:
        paths.existing(images, paths.IMAGES)
    from medscale.base.log import set_up
    from medscale.serve.export_command import export as write
    from medscale.serve.predict_command import load_result

    set_up()
    for line in write(load_result(result, seed, "cpu"), to, to_file, images):
        out.print(line, markup=False)


@main.command()
def size(
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    machine: Annotated[
        list[str] | None, typer.Option(help="kind of cost.devices and number: a100:4")
    ] = None,
    images: Annotated[
        int, typer.Option(help="what a study of so many images would need")
    ] = 10_000_000,
    gpus: Annotated[int, typer.Option(help="… on so many GPUs")] = 64,
) -> None:
    """Print what the study needs (hours, money, disk, jobs), and the limits of its growth."""
    from medscale.workflow.graph import Graph

    config = Graph(_changes(scale, only, configfile)).config
    from medscale.resources import sizing

    machines = [sizing.Machine.parse(text) for text in machine or ("a100:4", "h200:1")]
    text = sizing.text(config, machines, ROOT / "docs" / "scale.csv", images, gpus)
    print(terminal(text, lines=True), end="")


@main.command()
def show(
    results: Annotated[list[Path], typer.Argument(help="result folders, results/<study>/<run>")],
) -> None:
    """Print results: metrics with intervals, classes, operating points, subgroups, times."""
    for folder in results:
        paths.evaluated(folder)
    from medscale.report.show import show as parts

    for number, folder in enumerate(results):
        out.print("", end="\n" if number else "")
        for part in parts(folder):
            out.print(part)


@data.command("check")
def data_check(kind: Kind, folder: Path) -> None:
    """Check whether a download is complete, by names and tables only; seconds, offline."""
    from medscale.data.check import check as compare

    report = compare(kind, folder)
    counts = Table("split", "class", "there", "expected", box=None, pad_edge=False)
    for count in report.counts:
        expected = "" if count.expected is None else f"{count.expected:,}"
        images = f"{count.images:,}" if count.complete else f"[red bold]{count.images:,}[/]"
        counts.add_row(count.split, plain(count.label), images, expected)
    if report.counts:
        out.print(counts, "")
    _print_findings((finding.level, finding.message) for finding in report.findings)
    if not report.complete:
        raise MedscaleError(
            f"{folder} is not complete for dataset kind {kind}; see the lines above"
        )


@data.command("fetch")
def data_fetch(
    kind: Kind,
    to: Annotated[Path | None, typer.Option(help="raw folder; default: that of the study")] = None,
    run: Annotated[bool, typer.Option("--run", help="download, unpack and check")] = False,
) -> None:
    """Print how to download a dataset, and what that needs; with --run carry it out."""
    from medscale.base.log import set_up
    from medscale.data.download import fetch, instructions

    folder = to or _raw_folder(kind)
    if not run:
        out.print(instructions(kind, folder), markup=False)
        return
    set_up()
    fetch(kind, folder)
    data_check(kind, folder)


def _raw_folder(kind: str) -> Path:
    """Return the raw folder of the study in config.yaml that reads a dataset kind."""
    from medscale.workflow.graph import Graph

    graph = Graph({})
    names = [
        n
        for n, s in graph.config.studies.items()
        if s.source.kind == kind and graph.config.owner(n) == n
    ]
    if not names:
        raise MedscaleError(
            f"no study in config.yaml reads dataset kind {kind!r}: say the raw folder with --to"
        )
    return graph.raw(names[0])


def _print_findings(rows: Iterable[tuple[str, ...]]) -> None:
    """Print lines that begin with their level: ok, note or error."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for level, *texts in rows:
        table.add_row(MARK[level], *(plain(text, lines=True) for text in texts))
    out.print(table)


def _snakemake(targets: list[str], changes: dict[str, Any], configfile: Path | None) -> bool:
    """Run Snakemake in the project's root; return whether it succeeded."""
    command = [sys.executable, "-m", "snakemake", *targets]
    command += ["--quiet", "rules", "reason", "host"]
    command += ["--configfile", str(configfile.resolve())] if configfile else []
    settings = [f"{key}={changes[key]}" for key in ("scale", "only") if key in changes]
    return subprocess.run([*command, "--config", *settings], cwd=ROOT).returncode == 0


def _changes(
    scale: str, only: str | None, configfile: Path | None, cluster: bool = False
) -> dict[str, Any]:
    """Return the changes to config.yaml as Snakemake would read them."""
    from medscale.config.layers import merge

    layers = _layers(scale, only, configfile, cluster)
    return reduce(merge, (layer.tree for layer in layers), {})


def _layers(
    scale: str | None, only: str | None, configfile: Path | None, cluster: bool = False
) -> list[Layer]:
    """Return the layers of settings above config.yaml, the highest last.

    A scale in the file wins over the option, and the file over the cluster's settings.
    """
    from medscale.config.layers import Layer
    from medscale.resources.slurm import SITE

    layers = [Layer(str(SITE), _read(ROOT / SITE))] if cluster else []
    layers += [Layer(COMMAND_LINE, {"scale": scale})] if scale is not None else []
    if configfile is not None:
        layers.append(Layer(str(configfile), _read(configfile)))
    return layers + ([Layer(COMMAND_LINE, {"only": only})] if only else [])


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


if __name__ == "__main__":
    app()
