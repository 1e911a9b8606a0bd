"""Commands for trained runs: predict, evaluate, export, show and serve; and to search for leaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from medscale.base import paths
from medscale.base.code import shown_path
from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home
from medscale.base.text import amount
from medscale.cli.completion import results_like
from medscale.cli.options import Calibrated, Device, Result, Seed
from medscale.cli.printing import AsJson, out, print_facts
from medscale.data.kind import check_kind, kind_names
from medscale.serve.formats.registry import FORMATS, by_name


def serve(
    results: Annotated[
        list[Path],
        typer.Argument(help="result folders, or folders of them", autocompletion=results_like),
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
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="address of a proxy whose X-Forwarded-For names the caller"),
    ] = None,
    seed: Annotated[
        str, typer.Option(help="seeds that predict: best, all (their mean), or a number")
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
    """Serve trained runs as a web page and an HTTP API, by default to this machine alone."""
    values = dict(locals())
    paths.usable_results(results)
    from medscale.serve.http.start import serve as start

    options = values | {"hosts": values.pop("name") or (), "proxies": values.pop("proxy") or ()}
    start(options, lambda text: out.print(text, markup=False))


def leaks(
    files: Annotated[
        list[Path],
        typer.Argument(help="files or folders that are to be published", metavar="PATH"),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="a study's data folder, such as data/skin: its patients and files"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for ids of DICOM and of patients, addresses, home folders and hosts before publishing.

    For result folders, model cards, environment.json and other files that leave the machine.
    """
    files = [paths.existing_path(path, "name files or folders to be published") for path in files]
    for path in files:
        if path.is_dir() and not any(file.is_file() for file in path.rglob("*")):
            raise MedscaleError(f"{path} holds no file; name files or folders with files")
    folders = [paths.data_folder(folder) for folder in data or ()]
    from medscale.workflow.crate import scan
    from medscale.workflow.crate.anonymous import refuse_copy

    for folder in folders:
        refuse_copy(folder)
    names = scan.names_of_studies(folders, file_names=False)
    findings = {}
    for path in files:
        environments = sorted(path.rglob("environment.json")) if path.is_dir() else []
        findings[path] = list(scan.scan(path, [*names, scan.hosts(environments)]))
    facts = {
        "searched": files,
        "findings": [
            {"searched": path, **vars(finding)}
            for path, rows in findings.items()
            for finding in rows
        ],
        "names_too_short_to_search_for": sum(group.too_short for group in names),
    }
    print_facts(facts, _without_leaks(facts), as_json)
    for path, rows in findings.items():
        scan.refuse(rows, str(path))


def _without_leaks(facts: dict[str, Any]) -> Iterator[str]:
    leaking = {finding["searched"] for finding in facts["findings"]}
    for path in facts["searched"]:
        if path not in leaking:
            yield plain(f"{shown_path(path)}: nothing found")
    if too_short := facts["names_too_short_to_search_for"]:
        yield f"{too_short} names are too short to distinguish from ordinary words"


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
    calibrated: Calibrated = True,
    device: Device = None,
    batch: Annotated[int, typer.Option(min=1, help="images at a time")] = 32,
    sr: Annotated[
        Path | None, typer.Option(help="DICOM images: write a DICOM SR of each to this folder")
    ] = None,
    code: Annotated[
        list[str] | None, typer.Option(help="--sr: the code of a class, CLASS=SCHEME:VALUE:MEANING")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict classes and probabilities, or boxes, of new images by a trained run."""
    _check_files(result, images, csv, metadata)
    if code and sr is None:
        raise MedscaleError(
            "--code is for the reports of --sr; add --sr FOLDER, or leave --code out"
        )
    values = _metadata_values(result, metadata)
    from medscale.base.files import write_csv
    from medscale.base.log import set_up, track
    from medscale.serve import predict_command as command
    from medscale.serve.predict import load

    set_up()
    items = command.named_images(images)
    if sr is not None:
        from medscale.exchange import dicom_sr

        headers = dicom_sr.headers(items)
    predictor = load(result, seed, device)
    if sr is not None:
        dicom_sr.check(sr, items, predictor.classes, code or ())
    stream = predictor.stream(items, values, batch, calibrated)
    predictions = list(track(stream, "predicting", len(items)))
    if csv is not None:
        write_csv(csv, predictor.table(predictions))
    facts = command.facts(predictor, predictions)
    text = command.lines(predictor, predictions, csv)
    if sr is not None:
        reports = dicom_sr.write(sr, predictor, items, headers, predictions, code or ())
        facts["reports"] = reports
        line = f"{amount(len(reports), 'report')} in {plain(str(sr))}: {dicom_sr.RESEARCH}"
        text = chain(text, [line])
    print_facts(facts, text, as_json)
    command.check_readable(predictions)


def _check_files(
    result: Path, images: Sequence[Path], csv: Path | None, metadata: str | None
) -> None:
    """Refuse files that a prediction cannot read or write, before PyTorch is imported."""
    paths.usable_result(result)
    for image in images:
        paths.existing_image(image)
    if csv is not None:
        paths.new_file(csv)
    if metadata is not None and "=" not in metadata:
        advice = "--metadata is neither a CSV table nor facts such as age=61"
        paths.existing_path(Path(metadata), advice)


def _metadata_values(result: Path, metadata: str | None) -> Any:
    """Return parsed ``--metadata``; words that the network does not know are refused."""
    if metadata is None:
        return None
    from medscale.serve import bundle, inputs

    values = inputs.parse_metadata(metadata)
    if isinstance(values, dict):
        inputs.check_facts(values, bundle.read(result).metadata)
    return values


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
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained run on images of another origin, without a new fit."""
    paths.usable_result(result)
    paths.folder(folder, "name a folder of labelled images")
    check_kind(kind)
    if index is not None:
        index = paths.existing_path(index, "name the index.parquet of the study")
    paths.evaluated_result(result)
    from medscale.base.log import set_up
    from medscale.report.show_external import lines
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
    facts = {"folder": shown_path(path), **summary}
    titles = command.classification(result).class_titles
    print_facts(facts, lines(summary, shown_path(path), titles), as_json)


def export(
    result: Result,
    to: Annotated[str, typer.Option(help=f"format: {', '.join(FORMATS)}")] = "onnx",
    to_file: Annotated[
        Path | None, typer.Option("--out", help="default: <study>-<run>[.<format>].onnx here")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="a folder of images, to check the file on, and to calibrate a format that needs it"
        ),
    ] = None,
    preprocessed: Annotated[
        bool,
        typer.Option(
            "--preprocessed",
            help="the file takes preprocessed images of one size: without resizing, CLAHE, gamma"
            " and median",
        ),
    ] = False,
    calibrated: Calibrated = True,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained run as an ONNX file that takes decoded images, checked against PyTorch."""
    paths.usable_result(result)
    by_name(to)
    if images is not None:
        paths.folder(images, "name a folder of images")
    if to_file is not None:
        paths.new_file(to_file)
    from medscale.base.log import set_up
    from medscale.serve.export_command import export as write
    from medscale.serve.predict import load

    set_up()
    predictor = load(result, seed, "cpu")
    file = write(predictor, to, to_file, images, preprocessed=preprocessed, calibrated=calibrated)
    print_facts(vars(file), map(plain, file.lines()), as_json)


def show(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="result folders, results/<study>/<run>, or external/<set>/<run>; a folder of them"
            " lists its runs",
            autocompletion=results_like,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print results: metrics with intervals, classes, operating points, subgroups, times."""
    folders = {folder: paths.evaluations(folder) for folder in results}
    from medscale.report.result.summary import read_summary
    from medscale.report.show import listing
    from medscale.report.show import show as parts
    from medscale.report.show_external import show_external

    def text() -> Iterator[RenderableType]:
        for number, (folder, runs) in enumerate(folders.items()):
            yield from ["\n"] * (number > 0)
            if runs != [expand_home(folder)]:
                yield from listing(runs)
            else:
                yield from (show_external if paths.is_external(runs[0]) else parts)(runs[0])

    summaries = (
        {"folder": run, **read_summary(run, paths.is_external(run))}
        for runs in folders.values()
        for run in runs
    )
    print_facts({"results": list(summaries)}, text(), as_json)
