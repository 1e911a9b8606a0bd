"""Words that the shell completes: names of studies and runs, and result folders.

They come from config.yaml and from the folders on disk; the configuration is not validated, since
a person waits for each word.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from medscale.base.code import ROOT
from medscale.base.paths import SUMMARY

PLACES = ("results", "work/*/results")  # of result folders, from the folder of the shell


def studies_like(incomplete: str) -> list[str]:
    """Return the studies of config.yaml that begin with a text.

    In a list with commas the last name is completed.
    """
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _studies() if name.startswith(last)]


def runs_like(context: typer.Context, incomplete: str) -> list[str]:
    """Return the runs that begin with a text: those of the study before it, or of all studies."""
    studies = _studies()
    study_settings = studies.get(context.params.get("study") or "")
    runs = [run for study in [study_settings] if study for run in study.get("runs", [])] or [
        run for study in studies.values() if study for run in study.get("runs", [])
    ]
    return [run for run in dict.fromkeys(runs) if run.startswith(incomplete)]


def results_like(incomplete: str) -> list[str]:
    """Return the result folders that begin with a text, and folders that may hold some."""
    places = [folder for place in PLACES for folder in sorted(Path().glob(place))]
    results = [
        str(file.parent) for place in places for file in sorted(place.glob(f"*/[!.]*/{SUMMARY}"))
    ]
    matches = [result for result in results if result.startswith(incomplete)]
    return matches or [f"{folder}/" for folder in _folders(incomplete)]


def _folders(incomplete: str) -> Iterator[Path]:
    path = Path(incomplete)
    parent, start = (path, "") if incomplete.endswith("/") else (path.parent, path.name)
    if parent.is_dir():
        yield from sorted(f for f in parent.iterdir() if f.name.startswith(start) and f.is_dir())


def _studies() -> dict[str, Any]:
    from medscale.base.errors import MedscaleError
    from medscale.config.yaml_file import read_yaml

    try:
        studies = read_yaml(ROOT / "config.yaml").get("studies")
    except MedscaleError:
        return {}
    return studies if isinstance(studies, dict) else {}
