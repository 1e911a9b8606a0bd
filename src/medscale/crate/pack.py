"""Which files of a study go into its crate, and their copying: everything but images, rows of patients and weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from medscale.errors import MedscaleError
from medscale.provenance import ROOT
from medscale.workflow import Study

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
    "datasets.yaml",
    "reported.yaml",
    "requirements.lock",
    "pyproject.toml",
    "CITATION.cff",
    "LICENSE",
    "README.md",
)
OF_STUDY = ("audit.csv", "audit.json", "datasheet.md")
OF_REPLICATE = ("spec.json", "environment.json", "history.csv", "timing.json", "predictions.parquet")
WEIGHTS = "model.safetensors"


def pack(study: Study, folder: Path, weights: bool) -> None:
    """Copy code, records and results into ``folder``, each under the path that it has in the study.

    Raises:
        MedscaleError: when a file of a run is missing, or there is no result at all.
    """
    for pattern in CODE:
        for file in sorted(ROOT.glob(pattern)):
            _copy(file, folder / file.relative_to(ROOT))
    workdir = study.workdir
    for name in _of_study(study, weights):
        if not (workdir / name).is_file():
            raise MedscaleError(f"{workdir / name} is missing, so the study cannot be packed; make it: snakemake paper")
        _copy(workdir / name, folder / name)
    for place in ("results", "figures", "tables", "measured"):
        for name in study.with_variants:
            for file in sorted((workdir / place / name).rglob("*")):
                if file.is_file() and not file.name.startswith("."):
                    _copy(file, folder / file.relative_to(workdir))
    for file in sorted((workdir / "tables").glob("*.*")):
        _copy(file, folder / "tables" / file.name)


def replicates(study: Study) -> Iterator[tuple[str, str, int]]:
    """Name, run and seed of each replicate whose result is there."""
    for name in study.with_variants:
        for result in sorted((study.workdir / "results" / name).glob("*/summary.json")):
            for folder in study.replicates(name, result.parent.name):
                yield name, result.parent.name, int(Path(folder).name.removeprefix("seed"))


def _of_study(study: Study, weights: bool) -> list[str]:
    """Paths below the workdir of the files that must be there."""
    runs = list(replicates(study))
    if not runs:
        raise MedscaleError(f"{study.workdir / 'results'} holds no result to pack; make them first: snakemake paper")
    wanted = [*OF_REPLICATE, *([WEIGHTS] if weights else [])]
    files = [f"runs/{name}/{run}/seed{seed}/{file}" for name, run, seed in runs for file in wanted]
    files += [f"data/{name}/{file}" for name in dict.fromkeys(name for name, _, _ in runs) for file in OF_STUDY]
    return ["config.resolved.json", "paper/paper.pdf", *files]


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, to)
