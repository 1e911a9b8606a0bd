"""Parts that all generators share: options, removal of earlier files, parallel writing, marker."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import cv2
from pydantic import Field

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json, write_text
from medscale.base.interrupts import blocked
from medscale.base.limits import usable_cores
from medscale.base.log import log, track
from medscale.base.section import Strict

MARKER = "demo.json"
TRUNCATED, EMPTY, TEXT, THUMBS = "truncated", "empty", "text", "thumbs"  # kinds of faulty files


class Options(Strict):
    """Options of every generator; each generator adds its own."""

    seed: int = Field(0, ge=0)

    @property
    def images(self) -> int:
        """Approximate number of image files that are written."""
        raise NotImplementedError

    @property
    def labels(self) -> list[str]:
        """Names of the classes of these images, in the order of their codes."""
        raise NotImplementedError


class Drawing(Protocol):
    """The plan of one image to draw."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the files that its ``write`` function writes, relative to the raw folder."""


O = TypeVar("O", bound=Options)  # noqa: E741
D = TypeVar("D", bound=Drawing)


def write_dataset(
    kind: str,
    options: O,
    out: Path,
    drawings: Sequence[D],
    write: Callable[[O, Path, D], None],
    *,
    faulty: Mapping[str, str],
    whole: str,
    tables: Mapping[str, str] | None = None,
) -> None:
    """Write a synthetic raw folder.

    The same options and version of OpenCV give the same pixels for any number of processes, since
    the pixels of a drawing depend only on its plan and the seed. The marker is written last, so
    that an unfinished folder lacks it.

    Args:
        kind: name of the dataset kind.
        options: options of the generator.
        out: the raw folder.
        drawings: plans of all images.
        write: function that draws one image and writes its files; it must be picklable.
        faulty: kind (``TRUNCATED``, ``EMPTY``, ``TEXT`` or ``THUMBS``) of each faulty file by path.
            Real downloads contain such files, and the audit must list each of them.
        whole: path of the image file whose first half becomes the truncated file.
        tables: text of each further file by path.

    Raises:
        MedscaleError: when ``out`` holds files that no generator has written.
    """
    tables = tables or {}
    images = [path for drawing in drawings for path in drawing.paths]
    _clear(out, dict.fromkeys([*tables, *faulty, *images, MARKER]))
    workers = usable_cores()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread)
    try:
        with blocked():  # the processes of the pool start here, and inherit the signal mask
            results = pool.map(partial(write, options, out), drawings)
        for _ in track(results, "drawing images", len(drawings)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    _write_faulty(out, faulty, (out / whole).read_bytes())
    for path, text in tables.items():
        write_text(out / path, text)
    marker = {"synthetic": True, "kind": kind, "options": options.model_dump(mode="json")}
    write_json(out / MARKER, marker)
    log.info("%d synthetic images of kind %s in %s", options.images, kind, out)


def _clear(out: Path, planned: Iterable[str]) -> None:
    """Remove the files of an earlier generation, and create the folders of the planned files.

    A file next to ``out`` lists the generated files, so that a user's files are not removed.
    """
    planned = list(planned)
    list_file = out.parent / f".{out.name}.synthetic.json"
    generated = set(read_json(list_file)) if list_file.is_file() else set()
    paths = sorted(out.rglob("*"), reverse=True) if out.is_dir() else []
    files = {str(path.relative_to(out)) for path in paths if not path.is_dir()}
    if foreign := sorted(files - generated):
        raise MedscaleError(
            f"{out} holds files that were not generated, such as {foreign[0]}; "
            "move them away, or set source.synthetic to false"
        )
    for path in paths:  # in reverse order a folder comes after its contents
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    write_json(list_file, planned)
    for folder in {PurePosixPath(path).parent for path in planned}:
        (out / folder).mkdir(parents=True, exist_ok=True)


def _write_faulty(out: Path, faulty: Mapping[str, str], image: bytes) -> None:
    contents = {
        TRUNCATED: image[: len(image) // 2],
        EMPTY: b"",
        TEXT: b"not an image\n",
        THUMBS: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",  # how Windows' Thumbs.db begins
    }
    for path, kind in faulty.items():
        (out / path).write_bytes(contents[kind])


def _one_thread() -> None:
    """Limit OpenCV to one thread in each process, since there are as many processes as cores."""
    cv2.setNumThreads(1)
