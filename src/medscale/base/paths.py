"""Checks of the paths on the command line, which run before PyTorch is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home, has_hidden_part
from medscale.base.suggest import LIKENESS

INFERENCE = "inference.json"  # of a result folder: settings that a prediction needs
TIMING = "timing.json"  # of a run folder, whose files are complete when it exists
SUMMARY = "summary.json"  # of a result folder: the run and its metrics
SHIFT = "shift.csv"  # of an evaluation on external images, whose summary is another
INDEX = "index.parquet"  # of a study's data folder: the row of each image
CRATE = "ro-crate-metadata.json"  # of a crate: its description
RESULT_ADVICE = "name a result folder, results/<study>/<run>"
WORK = Path("work")  # has a working folder for each scale but the full one
SUGGESTIONS = 3  # number of names in a suggestion
IMAGES = "name image files, or folders of them"
# The name of a frame of a file with several, counted from 1: scan.dcm[2]
FRAME = re.compile(r"(?P<file>.+)\[(?P<number>[1-9]\d*)\]", re.DOTALL)


def refuse_unwritable(folder: Path) -> None:
    """Check that this user may write to a folder, or may create it.

    Raises:
        MedscaleError: otherwise; the message names the owner, the read-only file system, or the
            file in its place.
    """
    place = folder
    while not os.path.exists(place):  # false, too, below a folder that this user may not enter
        place = place.parent
    if os.path.isfile(place):
        raise MedscaleError(f"{place} is a file; name a folder by `workdir`")
    if os.access(place, os.W_OK | os.X_OK):
        return
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise MedscaleError(
            f"{place} is on a read-only file system: name another folder by `workdir`; raw images "
            "(source.path) may be on one"
        )
    try:
        owner = place.owner()
    except KeyError:  # a user whom this system does not know
        owner = f"user {place.stat().st_uid}"
    raise MedscaleError(
        f"you may not write to {place}, which belongs to {owner}: work in your own clone, or name "
        "another folder by `workdir`; raw images (source.path) may be another user's"
    )


def existing_path(path: Path, advice: str) -> Path:
    """Return a path with ``~`` replaced.

    Raises:
        MedscaleError: when the path does not exist; the message ends with the advice.
    """
    full = expand_home(path)
    if not full.exists():
        in_demo = Path("work", "demo", path)  # absolute paths stay as they are
        likely = f"did you mean {in_demo}? " if in_demo.exists() else ""
        raise MedscaleError(f"{path} does not exist; {likely}{advice}")
    return full


def existing_image(path: Path) -> Path:
    """Return the path of an image, of a frame of a file, or of a folder, with ``~`` replaced.

    Raises:
        MedscaleError: when it does not exist.
    """
    full = expand_home(path)
    if not full.exists() and (match := FRAME.fullmatch(str(path))):
        existing_path(Path(match["file"]), IMAGES)
        return full
    return existing_path(path, IMAGES)


def folder(path: Path, advice: str) -> Path:
    """Return the path of a folder with ``~`` replaced.

    Raises:
        MedscaleError: when it does not exist, is a file, or cannot be read; the message of the
            first two ends with the advice.
    """
    full = existing_path(path, advice)
    if not full.is_dir():
        raise MedscaleError(f"{path} is a file; {advice}")
    if not os.access(full, os.R_OK | os.X_OK):
        raise MedscaleError(f"{path} cannot be read: permission denied; change its permissions")
    return full


def data_folder(path: Path) -> Path:
    """Return the data folder of a study, which has its index, with ``~`` replaced.

    Raises:
        MedscaleError: when it has none.
    """
    full = expand_home(path)
    if not (full / INDEX).is_file():
        raise MedscaleError(f"{path} has no {INDEX}; name the data folder of a study")
    return full


def new_file(path: Path) -> Path:
    """Return the path of a file to be written, with ``~`` replaced.

    Raises:
        MedscaleError: when it is a folder, or a device or pipe, which would be replaced, and when
            one of its parents is a file or not writable.
    """
    full = expand_home(path)
    if full.is_dir():
        raise MedscaleError(f"{path} is a folder; name a file")
    if full.exists() and not full.is_file():
        raise MedscaleError(f"{path} is a device or a pipe, not a file; name a file")
    _check_parents(path, full)
    return full


def new_folder(path: Path, mark: str) -> Path:
    """Return the path of a folder to be written as a whole, with ``~`` replaced.

    It may replace an earlier folder of its kind, which contains a file ``mark``.

    Raises:
        MedscaleError: when it is a file, or a folder with other files, which would be lost.
    """
    full = expand_home(path)
    if full.is_file():
        raise MedscaleError(f"{path} is a file; name a new folder")
    if full.is_dir() and not (full / mark).is_file() and any(full.iterdir()):
        raise MedscaleError(f"{path} holds other files, which would be lost; name a new folder")
    _check_parents(path, full)
    return full


def _check_parents(path: Path, full: Path) -> None:
    for parent in full.parents:
        if parent.is_dir():
            if not os.access(parent, os.W_OK | os.X_OK):
                where = "this folder" if parent == Path() else parent
                raise MedscaleError(f"{path} cannot be written: {where} is not writable")
            return
        if parent.exists():
            raise MedscaleError(f"{path} cannot be written: {parent} is a file")


def evaluated_result(path: str | Path) -> Path:
    """Return a result folder with metrics (summary.json), with ``~`` replaced.

    Raises:
        MedscaleError: when the folder has no metrics; the message suggests similar names.
    """
    return _result(path, SUMMARY)


def evaluated_results(path: str | Path) -> list[Path]:
    """Return the result folders with metrics: the path itself, or all those below it.

    Raises:
        MedscaleError: when there is none, see ``evaluated_result``.
    """
    return _below(expand_home(path), SUMMARY) or [_result(path, SUMMARY)]


def evaluations(path: str | Path) -> list[Path]:
    """Return the result folders with metrics, or else evaluations on external images.

    They are the path itself, or all of their kind below it.

    Raises:
        MedscaleError: when there is none, see ``evaluated_result``.
    """
    full = expand_home(path)
    if is_external(full):
        return [full]
    return _below(full, SUMMARY) or _externals_below(full) or [_result(path, SUMMARY)]


def is_external(folder: Path) -> bool:
    """Whether a folder holds the results of an evaluation on external images."""
    return (folder / SHIFT).is_file() and (folder / SUMMARY).is_file()


def workdir_of(result: Path) -> Path:
    """Return the folder in which ``results/<study>/<run>`` lies; other folders may be copies.

    Above the root of the file system there is no folder, so that it stands for those above it.
    """
    return Path(os.path.abspath(result.resolve() / ".." / ".." / ".."))


def usable_result(path: str | Path) -> Path:
    """Return a result folder whose networks can predict (inference.json), with ``~`` replaced.

    Raises:
        MedscaleError: when the folder is not a result, or was written by an earlier version.
    """
    return _result(path, INFERENCE)


def usable_results(paths: Iterable[Path]) -> list[Path]:
    """Return the result folders whose networks can predict, among the paths and below them.

    Raises:
        MedscaleError: for a path without such a folder.
    """
    folders = [_below(expand_home(path), INFERENCE) or [_result(path, INFERENCE)] for path in paths]
    return [folder for below in folders for folder in below]


def _result(path: str | Path, file: str) -> Path:
    """Return a folder with a file of a result; MedscaleError if it has none."""
    full = expand_home(path)
    if not _is_result(full, file):
        raise _no_result(path, file)
    return full


def _is_result(folder: Path, file: str) -> bool:
    return (folder / file).is_file() and not is_external(folder)


def _no_result(path: str | Path, file: str) -> MedscaleError:
    """Return the error for a path that has no file of a result: the reason and the remedy."""
    full = expand_home(path)
    if not full.exists():
        return MedscaleError(f"{path} does not exist; {_nearest(full, file)}")
    if full.is_file():
        return MedscaleError(f"{path} is a file; {RESULT_ADVICE}")
    if is_external(full):
        return MedscaleError(
            f"{path} is an evaluation on external images, not a result: `medscale show` prints it; "
            f"here {RESULT_ADVICE}"
        )
    if (full / SUMMARY).is_file():
        return MedscaleError(
            f"{path} has no {file}, since an earlier version wrote it; evaluate the run again"
        )
    return MedscaleError(f"{path} has no {file}, so it is not a result; {_nearest(full, file)}")


def _below(folder: Path, file: str) -> list[Path]:
    """Return a folder if it has a file, and otherwise the folders below it that have it."""
    if _is_result(folder, file):
        return [folder]
    return [below for below in _holders(folder, file) if _is_result(below, file)]


def _externals_below(folder: Path) -> list[Path]:
    """Return the evaluations on external images below a folder."""
    return [below for below in _holders(folder, SHIFT) if is_external(below)]


def _holders(folder: Path, file: str) -> list[Path]:
    """Return the folders, below a folder, that contain a file of a name; no hidden ones."""
    folders = sorted(path.parent for path in folder.rglob(file)) if folder.is_dir() else []
    return [below for below in folders if not has_hidden_part(below.relative_to(folder))]


def _nearest(path: Path, file: str) -> str:
    """Return advice with the results whose names are most similar to a path that is not a result.

    The search covers two levels (study, run) below the path, or below its first existing parent,
    and otherwise the working folders of other scales, such as ``work/demo``.
    """
    by_name = {
        str(folder.relative_to(work)): folder
        for work in sorted(WORK.glob("*"))
        for result in work.glob(f"results/*/[!.]*/{file}")
        for folder in (result.parent, result.parent.parent)
    }
    if exact := by_name.get(str(path)):
        return f"did you mean {exact}?"
    corrected = _corrected(path, file)
    if corrected == path:
        corrected = None  # each folder exists, so nothing is misspelt
    if corrected is not None and (corrected.name == path.name or not _is_result(corrected, file)):
        return f"did you mean {corrected}?"
    above = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path())
    results = [result.parent for end in ("", "*/") for result in above.glob(f"{end}[!.]*/{file}")]
    names = sorted(str(result) for result in results if _is_result(result, file))
    if not names:
        close = get_close_matches(str(path), by_name, 1)
        return f"did you mean {by_name[close[0]]}?" if close else RESULT_ADVICE
    close = get_close_matches(str(path), names, SUGGESTIONS, 0.0)
    number = f"{len(names)} results" if len(names) > 1 else "1 result"
    return f"similar names among {number}: {', '.join(close)}"


def _corrected(path: Path, file: str) -> Path | None:
    """Return the path with each misspelt folder replaced by the most similar one.

    None if a folder has no similar name, or if no result lies at the path or below it.
    """
    place = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if not (place / part).is_dir():
            names = [folder.name for folder in place.iterdir() if folder.is_dir()]
            close = get_close_matches(part, names, 1, LIKENESS)
            if not close:
                return None
            part = close[0]
        place /= part
    return place if _below(place, file) else None
