"""Checks of the paths on the command line, made before PyTorch is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from medscale.base.errors import MedscaleError

INFERENCE = "inference.json"  # of a result folder: settings that a prediction needs
SUMMARY = "summary.json"  # of a result folder: the run and its metrics
IMAGES = "name image files, or folders of them"
# The name of a frame of a file with several, counted from 1: scan.dcm[2]
FRAME = re.compile(r"(?P<file>.+)\[(?P<number>[1-9]\d*)\]", re.DOTALL)


def existing(path: Path, advice: str) -> Path:
    """Return a path with ``~`` replaced.

    Raises MedscaleError, which ends with the advice, if the path does not exist.
    """
    full = path.expanduser()
    if not full.exists():
        raise MedscaleError(f"{path} does not exist; {advice}")
    return full


def existing_image(path: Path) -> Path:
    """Return the path of an image, of a frame of a file, or of a folder, with ``~`` replaced.

    Raises MedscaleError if it does not exist.
    """
    full = path.expanduser()
    if not full.exists() and (match := FRAME.fullmatch(str(path))):
        existing(Path(match["file"]), IMAGES)
        return full
    return existing(path, IMAGES)


def evaluated(folder: str | Path) -> Path:
    """Return a result folder whose metrics can be shown.

    Raises MedscaleError if the folder holds no metrics.
    """
    if not (Path(folder) / SUMMARY).is_file():
        raise MedscaleError(
            f"{folder} is no result: it has no {SUMMARY}; results are results/<study>/<run>"
        )
    return Path(folder)


def usable(folder: str | Path) -> Path:
    """Return a result folder whose networks can predict.

    Raises MedscaleError if the folder is no such folder, or an earlier version wrote it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MedscaleError(
            f"{folder} does not exist; name a result folder, such as results/<study>/<run>"
        )
    if not (folder / INFERENCE).is_file():
        older = ""
        if (folder / SUMMARY).is_file():
            older = "; it was made by an earlier version: evaluate it again"
        raise MedscaleError(
            f"{folder} has no {INFERENCE}, so it is no result folder as results/<study>/<run>"
            f" is{older}"
        )
    return folder


def usable_below(paths: Iterable[Path]) -> list[Path]:
    """Return the result folders whose networks can predict, among the paths and below them.

    Raises MedscaleError for a path without one.
    """
    folders: list[Path] = []
    for path in paths:
        below = sorted(file.parent for file in path.rglob(INFERENCE))
        if not (result := [path] if (path / INFERENCE).is_file() else below):
            raise MedscaleError(
                f"{path} holds no result that can be used (no {INFERENCE}); name a result folder,"
                " or a folder that contains some"
            )
        folders += result
    return folders
