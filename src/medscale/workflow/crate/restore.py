"""A study's crate laid out again: sources of the report, from which Snakemake makes the paper.

Only data are written, by the patterns of ``kinds``. The code in a crate is neither written nor
run: the code of this checkout makes the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import read_foreign_json, sha256, write_json
from medscale.config.configuration import Config
from medscale.report import style
from medscale.report.result.folder import whole_folder
from medscale.workflow.chapters import image_figures
from medscale.workflow.crate.archive import Crate, check_space, opened
from medscale.workflow.crate.kinds import LEFT_OUT, PAPER, RECORD, kind_of
from medscale.workflow.crate.manifest import MANIFEST
from medscale.workflow.crate.pack import absent
from medscale.workflow.restored import MARKER, RESOLVED, read_config

# Files of a crate that decide the numbers and the text of the report.
CODE = ("src/", "scripts/", "rules/", "paper/", "checklists/", "claims.yaml", "reported.yaml")
TEXT = (
    "This figure shows images of the study and is left out:\n"
    "the paper was rebuilt from a crate that was packed without images."
)
WIDTHS, HEIGHTS = (1.0, 20.0), (0.5, 20.0)  # inches of a figure


@dataclass(frozen=True)
class Restoration:
    """The content of a restored folder."""

    files: int  # that were laid out
    studies: list[str]  # active studies
    left_out: list[str]  # figures with images, in whose place a figure says so
    code: list[str]  # files of the crate's code that differ from this checkout's


@dataclass
class Comparison:
    """Files of a crate and of the report that was made from it, as paths in both."""

    equal: list[str] = field(default_factory=list)  # byte by byte
    different: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # not made yet
    left_out: list[str] = field(default_factory=list)  # of the restored study: figures with images


def restore(path: Path, to: Path) -> Restoration:
    """Lay a crate out in a new folder, completely or not at all.

    Raises MedscaleError when the crate is damaged, hostile or not complete, or the folder holds
    files.

    Args:
        path: ZIP archive or folder.
        to: the folder that becomes the workdir of the restored study.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise MedscaleError(f"{to} holds files already: name another folder with --to")
    with opened(path) as crate:
        check_space(crate, to)
        with whole_folder(to) as folder:
            files = sum(_lay_out(crate, name, folder) for name in crate.digests)
            config = read_config(folder) if (folder / RESOLVED).is_file() else None
            if config is None or (lacking := absent(config, folder)):
                missing = RESOLVED if config is None else lacking[0]
                raise MedscaleError(
                    f"{path} lacks {missing}, so the paper cannot be made from it; pack the study "
                    "again: medscale crate"
                )
            left_out = list(_fill_places(crate, config, folder))
            restoration = Restoration(files, config.active, left_out, list(_other_code(crate)))
            write_json(folder / MARKER, _marker(crate, restoration))
    return restoration


def compare(path: Path, folder: Path) -> Comparison:
    """Compare the report in a crate with the one that was made from it.

    Raises MedscaleError when the folder was not restored from this crate.
    """
    about = read_foreign_json(folder / MARKER) if (folder / MARKER).is_file() else {}
    with opened(path) as crate:
        if about.get("crate") != crate.digest:
            raise MedscaleError(f"{folder} was not restored from {path}")
        result = Comparison(left_out=list(about["left_out"]))
        for name, digest in sorted(crate.digests.items()):
            if not _is_made(name) or name in result.left_out:
                continue
            file = folder / name
            state = "absent"
            if file.is_file():
                state = "equal" if sha256(file) == digest else "different"
            getattr(result, state).append(name)
    return result


def _is_made(name: str) -> bool:
    """Return whether the report's chapters make a file, so that it is not laid out."""
    kind, place = kind_of(name), name.partition("/")[0]
    is_document = place == "data" and name.endswith(".md")
    return name == PAPER or (kind == RECORD and (place in ("figures", "tables") or is_document))


def _lay_out(crate: Crate, name: str, folder: Path) -> bool:
    """Check a file of a crate against its digest; write it unless it is code or will be made."""
    is_data = kind_of(name) is not None and not _is_made(name)
    crate.read(name, folder / name if is_data else None)
    return is_data


def _fill_places(crate: Crate, config: Config, folder: Path) -> Iterator[str]:
    """Replace each figure that the crate does not have by one that names the reason.

    It has the size of the figure that it stands for, so that the pages stay as they are.
    """
    sizes: Any = {}
    if LEFT_OUT in crate.digests:
        crate.read(LEFT_OUT, folder / LEFT_OUT)
        content = read_foreign_json(folder / LEFT_OUT)
        sizes = content if isinstance(content, dict) else {}
        (folder / LEFT_OUT).unlink()
    for path in image_figures(config):
        if not (folder / path).is_file():
            with style.house():
                style.save(_notice(sizes.get(path)), folder / path)
            yield path


def _notice(size: Any) -> Any:
    """Return a figure with ``TEXT``; ``size``: width and height in inches, or None."""
    width, height = (style.WIDTH, 1.2)
    match size:
        case [int() | float(), int() | float()]:
            width, height = size
    figure = style.new(_within(height, HEIGHTS), _within(width, WIDTHS))
    style.empty(figure.subplots(), TEXT)
    return figure


def _within(length: float, limits: tuple[float, float]) -> float:
    return min(max(length, limits[0]), limits[1])


def _other_code(crate: Crate) -> Iterator[str]:
    """Yield the files of the crate's code that differ from those of this checkout."""
    for name, digest in sorted(crate.digests.items()):
        file = ROOT / name
        is_code = name.startswith(CODE) and kind_of(name) is None
        if is_code and not (file.is_file() and sha256(file) == digest):
            yield name


def _marker(crate: Crate, restoration: Restoration) -> dict[str, Any]:
    return {
        "crate": crate.digest,
        "manifest": MANIFEST,
        "studies": restoration.studies,
        "left_out": restoration.left_out,
        "other_code": restoration.code,
    }
