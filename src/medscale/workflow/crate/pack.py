"""Copies a study's files into its crate, by kind: records, and further kinds on request."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from medscale.base import code
from medscale.base.code import ROOT, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.base.provenance import SITE
from medscale.config.configuration import Config
from medscale.config.sweep import trainings
from medscale.engine.plan import replicate_name
from medscale.report.result.summary import read_summary
from medscale.workflow.chapters import image_figures, sources
from medscale.workflow.crate import anonymous, scan
from medscale.workflow.crate.clean import SETTINGS, copy
from medscale.workflow.crate.kinds import (
    FILE_NAMES,
    IMAGES,
    LEFT_OUT,
    MODEL,
    PAPER,
    RECORD,
    REPLICATE,
    WEIGHTS,
    publishable,
)
from medscale.workflow.graph import Graph
from medscale.workflow.restored import RESOLVED

PAGE = re.compile(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]")  # of a PDF, in points
POINTS = 72  # an inch

CODE = (
    "Snakefile",
    "rules/*.smk",
    "scripts/*.py",
    "src/medscale/**/*.py",
    "src/medscale/**/*.j2",
    "checklists/*.yaml",
    "profiles/**/*.yaml",
    "report/*.rst",
    "paper/**/*.j2",
    "paper/*.bib",
    *SETTINGS,
    "claims.yaml",
    "reported.yaml",
    "requirements.lock",
    "pyproject.toml",
    "CITATION.cff",
    "LICENSE",
    "README.md",
)
OF_STUDY = {
    "audit.json": RECORD,
    "datasheet.md": RECORD,
    "index.parquet": RECORD,
    "audit.csv": FILE_NAMES,
}


def pack(graph: Graph, folder: Path, request: Collection[str]) -> Counter[str]:
    """Copy code, records and results into ``folder``, under their paths in the study.

    Raises MedscaleError when a file of a run is missing, or there is no result at all.

    Args:
        graph: the study.
        folder: of the crate.
        request: kinds of files to pack besides records: weights, images, file names.

    Returns:
        Number of existing files that were left out, by kind; ``other``: of no known kind.
    """
    for file in _code():
        copy(file, folder / file.relative_to(ROOT))
    workdir, selection = graph.workdir, {RECORD, *request}
    required = _required(graph)
    names = [*graph.trained, *graph.externals]
    optional = [*publishable(workdir, names), *_further_histories(graph)]
    for path, kind in dict.fromkeys([*required, *optional]):
        nameless = anonymous.is_copied(path) and not (kind == FILE_NAMES and kind in selection)
        if kind in selection or nameless:
            if not (workdir / path).is_file():
                raise _missing(graph, path)
            if nameless:
                anonymous.copy(workdir / path, folder / path, path)
            else:
                copy(workdir / path, folder / path)
    _write_settings(graph, folder)
    if lacking := absent(graph.config, folder):
        raise _missing(graph, lacking[0])
    sizes = {path: page_size(workdir / path) for path in image_figures(graph.config)}
    write_json(folder / LEFT_OUT, {p: s for p, s in sizes.items() if not (folder / p).is_file()})
    existing = [kind for path, kind in required if (workdir / path).is_file()]
    kinds = [*existing, *(kind for _, kind in optional)]
    return Counter(kind or "other" for kind in kinds if kind not in selection)


def absent(config: Config, folder: Path) -> list[str]:
    """Return the missing files of a folder from which the report of a study is made."""
    paths = [folder / path for path in sources(config)]
    return [
        path.relative_to(folder).as_posix()
        for path in paths
        if not (any(path.iterdir()) if path.is_dir() else path.is_file())
    ]


def page_size(figure: Path) -> list[float] | None:
    """Return width and height (inches) of a figure that Matplotlib wrote; None for other files."""
    match = PAGE.search(figure.read_bytes()) if figure.is_file() else None
    return match and [float(points) / POINTS for points in match.groups()]


def check_disclosure(graph: Graph, folder: Path, request: Collection[str]) -> None:
    """Raise MedscaleError for names in the files of a crate that must not leave the machine.

    Args:
        graph: the study, whose patients, files and hosts are searched for.
        folder: of the crate.
        request: kinds of files that were packed besides records.
    """
    data = [graph.workdir / "data" / name for name in [*graph.trained, *graph.externals]]
    environments = [
        graph.workdir / "runs" / study / run / name / "environment.json"
        for study, run, name in replicates(graph)
    ]
    source = {f.relative_to(ROOT).as_posix() for f in _code() if f.name not in SETTINGS}
    file_names = FILE_NAMES in request
    names = [*scan.names_of_studies(data, file_names=file_names), scan.hosts(environments)]
    scan.refuse(scan.scan(folder, names, source), "the crate")


def replicates(graph: Graph) -> Iterator[tuple[str, str, str]]:
    """Yield study, run and name of each replicate of the existing results.

    A result of a run that is no longer configured has its own replicates. Hidden folders are those
    that a killed evaluation left.
    """
    for study in graph.trained:
        for file in sorted((graph.workdir / "results" / study).glob("[!.]*/summary.json")):
            for name in read_summary(file.parent)["replicates"]:
                yield study, file.parent.name, name


def _further_histories(graph: Graph) -> Iterator[tuple[str, str]]:
    """Yield path and kind of the histories that chapters read besides those of results."""
    folders = {f"runs/{study}/{run}/{name}" for study, run, name in replicates(graph)}
    for study in graph.studies:
        for entry, run, seeds in trainings(graph.config, study):
            for replicate in graph.config.replicates_of(entry, seeds):
                folder = f"runs/{entry}/{run}/{replicate_name(*replicate)}"
                path = f"{folder}/history.csv"
                if folder not in folders and (graph.workdir / path).is_file():
                    yield path, RECORD


def _code() -> list[Path]:
    """Return the files of the program and its settings, without those of the user's cluster."""
    return [file for file in code.sources(ROOT, *CODE) if file != ROOT / SITE]


def _missing(graph: Graph, path: str) -> MedscaleError:
    return MedscaleError(
        f"{shown_path(graph.workdir / path)} is missing, so the study cannot be packed; make it: "
        + graph.snakemake("all")
    )


def _write_settings(graph: Graph, folder: Path) -> None:
    """Narrow the recorded configuration to the active studies, which are those of the crate.

    ``only`` keeps their order, which the sorted keys of the file lose (``Graph.resolved``). Account
    and folders of the user's cluster stay out.
    """
    tree = read_json(folder / RESOLVED)
    changes = {"only": graph.config.active} | ({"cluster": None} if tree.get("cluster") else {})
    if tree | changes != tree:
        write_json(folder / RESOLVED, tree | changes)


def _required(graph: Graph) -> list[tuple[str, str]]:
    """Return path below the workdir and kind of the files that belong to each result."""
    runs = list(replicates(graph))
    if not runs:
        raise MedscaleError(
            f"{graph.workdir / 'results'} holds no result to pack; make them first: snakemake paper"
        )
    kinds = dict.fromkeys(REPLICATE, RECORD) | {MODEL: WEIGHTS}
    files = [
        (f"runs/{study}/{run}/{name}/{file}", kind)
        for study, run, name in runs
        for file, kind in kinds.items()
    ]
    files += [
        (f"data/{name}/{file}", kind)
        for name in dict.fromkeys(graph.config.data_of(name) for name, _, _ in runs)
        for file, kind in OF_STUDY.items()
    ]
    audits = [(f"data/{name}/audit.json", RECORD) for name in graph.externals]
    return [(RESOLVED, RECORD), (PAPER, IMAGES), *audits, *files]
