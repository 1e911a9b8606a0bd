"""Commands on trained runs: predict, evaluate, export, show, serve, and publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medscale.base import paths
from medscale.base.code import shown_path
from medscale.base.errors import MedscaleError
from medscale.base.log import plain
from medscale.cli.options import ConfigFile, Only, Result, Scale, Seed, changes_of, out
from medscale.data.kind import kind_names
from medscale.serve.formats.registry import FORMATS, by_name


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
    values = dict(locals())
    paths.usable_below(results)
    from medscale.serve.http.start import serve as start

    options = values | {"hosts": values.pop("name") or (), "proxies": values.pop("proxy") or ()}
    start(options, lambda text: out.print(text, markup=False))


def crate(
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
) -> None:
    """Pack code, records and results as a Workflow Run RO-Crate; refused with data of patients.

    Weights, figures with images, and file names stay out unless an option names them.
    """
    if context.invoked_subcommand is not None:
        return
    from medscale.workflow.graph import Graph

    graph = Graph(changes_of(scale, only, configfile))
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


def leaks(
    paths: Annotated[list[Path], typer.Argument(help="files or folders that are to be published")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="a study's data folder, such as data/skin: its patients and files"),
    ] = None,
) -> None:
    """Look for ids of DICOM and of patients, addresses, home folders and hosts before publishing.

    For result folders, model cards, environment.json and other files that leave the machine.
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
        out.print(f"{too_short} names are too short to distinguish from ordinary words")


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
    sr: Annotated[
        Path | None, typer.Option(help="DICOM images: write a DICOM SR of each to this folder")
    ] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(help="--sr: the code of a class, CLASS=SCHEME:VALUE:MEANING"),
    ] = None,
) -> None:
    """Predict classes and probabilities, or boxes, of new images by a trained run."""
    paths.usable(result)
    for image in images:
        paths.existing_image(image)
    if code and sr is None:
        raise MedscaleError("--code is for the reports that --sr writes")
    if metadata is not None and "=" not in metadata:
        advice = "--metadata is neither a CSV table nor facts such as age=61"
        paths.existing(Path(metadata), advice)
    from medscale.base.files import write_csv
    from medscale.base.log import set_up
    from medscale.serve import predict_command as command

    set_up()
    items = command.named_images(images)
    if sr is not None:
        from medscale.exchange import dicom_sr

        headers = dicom_sr.headers(items)
    predictor = command.load_result(result, seed, device)
    values = command.parse_metadata(metadata)
    predictions = command.predict(predictor, items, values, batch_size=batch, calibrated=calibrated)
    table = predictor.table(predictions)
    out.print(command.result_table(predictor, predictions))
    if note := command.sentence_on_frames(predictions):
        out.print(plain(note))
    if csv is not None:
        write_csv(csv, table)
        out.print(f"{len(predictions)} images in {plain(str(csv))}")
    if sr is not None:
        reports = dicom_sr.write(sr, predictor, items, headers, predictions, code or (), calibrated)
        out.print(f"{len(reports)} reports in {plain(str(sr))}: {dicom_sr.RESEARCH}")
    if failed := sum(prediction.error is not None for prediction in predictions):
        raise MedscaleError(
            f"{failed} of {len(predictions)} images could not be read; the column `error` says why"
        )


def evaluate(
    result: Result,
    folder: Annotated[Path, typer.Argument(help="labelled images from outside the study")],
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
    """Evaluate a trained run on images of another origin, without a new fit."""
    paths.usable(result)
    from medscale.base.log import set_up
    from medscale.serve import evaluate_command as command

    set_up()
    path, summary = command.evaluate(
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
    for part in command.lines(summary):
        out.print(part)
    out.print(f"figures, tables and predictions: {plain(shown_path(path))}/")


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
