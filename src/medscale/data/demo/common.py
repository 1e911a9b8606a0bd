"""What all generators of synthetic raw images share: options, clearing, writing in parallel, odd files, marker."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import cv2
from pydantic import Field, ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.base.log import log, track
from medscale.base.section import Strict

MARKER = "demo.json"
TRUNCATED, EMPTY, TEXT, THUMBS = "truncated", "empty", "text", "thumbs"


class Options(Strict):
    """Options that every synthetic set has; each generator adds its own."""

    seed: int = Field(0, ge=0)

    @property
    def images(self) -> int:
        """About how many image files are written."""
        raise NotImplementedError


O = TypeVar("O", bound=Options)  # noqa: E741
T = TypeVar("T")


def parse_options(model: type[O], options: dict[str, Any]) -> O:
    """Check ``source.options`` against a generator's model.

    Raises:
        MedscaleError: which option is wrong and why.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MedscaleError(
            f"source.options.{where} of the synthetic images: {first['msg']}"
        ) from None


def clear(out: Path, planned: Iterable[str]) -> None:
    """Remove what an earlier generator wrote, by its list in a file beside the folder, and list what comes now.

    Args:
        out: the raw folder.
        planned: every file that will be written, relative to ``out``, the marker excepted; their folders are made.

    Raises:
        MedscaleError: when ``out`` holds files that no generator has written.
    """
    planned = [*planned, MARKER]
    list_file = out.parent / f".{out.name}.synthetic.json"
    earlier = set(read_json(list_file)) if list_file.is_file() else set()
    found = sorted(out.rglob("*"), reverse=True) if out.is_dir() else []
    here = {str(path.relative_to(out)) for path in found if not path.is_dir()}
    if foreign := sorted(here - earlier):
        raise MedscaleError(
            f"{out} holds files that were not generated, such as {foreign[0]}; "
            "move them away, or set source.synthetic to false"
        )
    for path in found:  # what is in a folder comes before the folder
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    write_json(list_file, planned)
    for folder in {PurePosixPath(path).parent for path in planned}:
        (out / folder).mkdir(parents=True, exist_ok=True)


def write_all(write: Callable[[T], None], items: Sequence[T], what: str) -> None:
    """Call ``write`` on each item in one process a core, OpenCV at one thread; unfinished sets lack the marker.

    Args:
        write: a module's function, or a ``functools.partial`` of one, since it is sent to other processes.
        items: what to write; the pixels of one must not depend on the others.
        what: what is being done, for the log.
    """
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
        for _ in track(pool.map(write, items, chunksize=8), what, len(items)):
            pass


def write_odd_files(out: Path, odd: Mapping[str, str], whole: Path) -> None:
    """Write what real downloads also hold; the audit lists each.

    Args:
        out: the raw folder.
        odd: kind of each file (``TRUNCATED``, ``EMPTY``, ``TEXT`` or ``THUMBS``) by its path relative to ``out``.
        whole: an image file of which the first half becomes the truncated one.
    """
    data = whole.read_bytes()
    contents = {
        TRUNCATED: data[: len(data) // 2],
        EMPTY: b"",
        TEXT: b"not an image\n",
        THUMBS: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    }
    for path, kind in odd.items():
        (out / path).write_bytes(contents[kind])


def finish(out: Path, kind: str, options: Options, count: int) -> None:
    """Write the marker, which says that the set is synthetic and complete, and log how many images it has."""
    write_json(
        out / MARKER, {"synthetic": True, "kind": kind, "options": options.model_dump(mode="json")}
    )
    log.info("%d synthetic images of kind %s in %s", count, kind, out)


def _one_thread() -> None:
    cv2.setNumThreads(1)
