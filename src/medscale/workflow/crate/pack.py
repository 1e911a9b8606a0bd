"""Copies a study's files into its crate, by kind: records, and further kinds on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.config.sweep import trainings
from medscale.engine.plan import replicate_name
from medscale.workflow.crate import scan
from medscale.workflow.crate.clean import SETTINGS, copy
from medscale.workflow.crate.kinds import (
    FILE_NAMES,
    IMAGES,
    MODEL,
    PAPER,
    RECORD,
    REPLICATE,
    WEIGHTS,
    publishable,
)
from medscale.workflow.graph import Graph

CODE = (
    "Snakefile",
    "rules/*.smk",
    "scripts/*.py",
    "src/medscale/**/*.py",
    "profiles/**/*.yaml",
    "report/*.rst",
    "paper/*.j2",
    "paper/*.bib",
    "paper/sections/*.j2",
    *SETTINGS,
    "reported.yaml",
    "claims.yaml",
    "checklists/*.yaml",
    "requirements.lock",
    "pyproject.toml",
    "CITATION.cff",
    "LICENSE",
    "README.md",
)
OF_STUDY = {"audit.json": RECORD, "datasheet.md": RECORD, "audit.csv": FILE_NAMES}


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
    for path, kind in required:
        if kind in selection:
            if not (workdir / path).is_file():
                raise MedscaleError(
                    f"{workdir / path} is missing, so the study cannot be packed; "
                    "make it: snakemake paper"
                )
            copy(workdir / path, folder / path)
    optional = [*publishable(workdir, graph.trained), *_further_histories(graph)]
    for path, _ in (file for file in optional if file[1] in selection):
        copy(workdir / path, folder / path)
    existing = [kind for path, kind in required if (workdir / path).is_file()]
    kinds = [*existing, *(kind for _, kind in optional)]
    return Counter(kind or "other" for kind in kinds if kind not in selection)


def check_disclosure(graph: Graph, folder: Path, request: Collection[str]) -> None:
    """Raise MedscaleError if the files of a crate hold what must not leave the machine.

    Args:
        graph: the study, whose patients, files and hosts are searched for.
        folder: of the crate.
        request: kinds of files that were packed besides records.
    """
    data = [graph.workdir / "data" / study for study in graph.with_variants]
    environments = [
        graph.workdir / "runs" / study / run / name / "environment.json"
        for study, run, name in replicates(graph)
    ]
    code = {f.relative_to(ROOT).as_posix() for f in _code() if f.name not in SETTINGS}
    file_names = FILE_NAMES in request
    names = [*scan.names_of_studies(data, file_names=file_names), scan.hosts(environments)]
    scan.refuse(scan.scan(folder, names, code), "the crate")


def replicates(graph: Graph) -> Iterator[tuple[str, str, str]]:
    """Yield study, run and name of each replicate of the existing results."""
    for study in graph.trained:
        for result in sorted((graph.workdir / "results" / study).glob("*/summary.json")):
            for folder in graph.replicates(study, result.parent.name):
                yield study, result.parent.name, Path(folder).name


def _further_histories(graph: Graph) -> Iterator[tuple[str, str]]:
    """Yield path and kind of the histories that chapters read besides those of results."""
    known = {folder for name, run, _ in replicates(graph) for folder in graph.replicates(name, run)}
    for study in graph.studies:
        for entry, run, seeds in trainings(graph.config, study):
            for replicate in graph.config.replicates_of(entry, seeds):
                folder = f"runs/{entry}/{run}/{replicate_name(*replicate)}"
                path = f"{folder}/history.csv"
                if folder not in known and (graph.workdir / path).is_file():
                    yield path, RECORD


def _code() -> list[Path]:
    """Return the files of the program and its settings."""
    return [file for pattern in CODE for file in sorted(ROOT.glob(pattern))]


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
    return [("config.resolved.json", RECORD), (PAPER, IMAGES), *files]
