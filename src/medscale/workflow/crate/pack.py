"""Copying of a study's files into its crate: all but images, rows of patients and weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.workflow.graph import Graph

CODE = (
    "Snakefile",
    "rules/*.smk",
    "scripts/*.py",
    "src/medscale/**/*.py",
    "profiles/**/*.yaml",
    "report/*.rst",
    "paper/*.*",
    "paper/sections/*",
    "config.yaml",
    "reported.yaml",
    "requirements.lock",
    "pyproject.toml",
    "CITATION.cff",
    "LICENSE",
    "README.md",
)
OF_STUDY = ("audit.csv", "audit.json", "datasheet.md")
OF_REPLICATE = (
    "spec.json",
    "environment.json",
    "history.csv",
    "timing.json",
    "predictions.parquet",
)
WEIGHTS = "model.safetensors"


def pack(graph: Graph, folder: Path, weights: bool) -> None:
    """Copy code, records and results into ``folder``, under their paths in the study.

    Raises MedscaleError when a file of a run is missing, or there is no result at all.
    """
    for pattern in CODE:
        for file in sorted(ROOT.glob(pattern)):
            _copy(file, folder / file.relative_to(ROOT))
    workdir = graph.workdir
    for name in _of_study(graph, weights):
        if not (workdir / name).is_file():
            raise MedscaleError(
                f"{workdir / name} is missing, so the study cannot be packed; "
                "make it: snakemake paper"
            )
        _copy(workdir / name, folder / name)
    places = [
        workdir / place / study
        for place in ("results", "figures", "tables", "measured")
        for study in graph.with_variants
    ]
    for place in [*places, *(workdir / "external" / name for name in graph.externals)]:
        for file in sorted(place.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                _copy(file, folder / file.relative_to(workdir))
    for file in sorted((workdir / "tables").glob("*.*")):
        _copy(file, folder / "tables" / file.name)


def replicates(graph: Graph) -> Iterator[tuple[str, str, int]]:
    """Yield study, run and seed of each replicate of the existing results."""
    for name in graph.with_variants:
        for result in sorted((graph.workdir / "results" / name).glob("*/summary.json")):
            for folder in graph.replicates(name, result.parent.name):
                yield name, result.parent.name, int(Path(folder).name.removeprefix("seed"))


def _of_study(graph: Graph, weights: bool) -> list[str]:
    """Return the paths below the workdir of the files that the crate must have."""
    runs = list(replicates(graph))
    if not runs:
        raise MedscaleError(
            f"{graph.workdir / 'results'} holds no result to pack; make them first: snakemake paper"
        )
    required = [*OF_REPLICATE, *([WEIGHTS] if weights else [])]
    files = [
        f"runs/{name}/{run}/seed{seed}/{file}" for name, run, seed in runs for file in required
    ]
    files += [
        f"data/{name}/{file}"
        for name in dict.fromkeys(name for name, _, _ in runs)
        for file in OF_STUDY
    ]
    return ["config.resolved.json", "paper/paper.pdf", *files]


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, to)
