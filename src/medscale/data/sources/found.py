"""What a source module hands on: the images it lists, the files it leaves out, and helpers to list a raw folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from posixpath import basename, dirname

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data.images import is_named_image

# Columns of Found.rows; any further column is the dataset's own metadata.
COLUMNS = ("path", "label", "split_published", "group", "source")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

NO_IMAGE_NAME = "not an image by its name"
NOT_A_FILE = "not a regular file"
BAD_NAME = "name is not UTF-8"
HIDDEN = "hidden folder"
NO_FOLDER = "outside the class folders"
NOT_LISTED = "not listed"
NO_FILE = "listed but missing"
NO_LABEL = "no label"
OTHER_CLASS = "class not in the study"
CONFLICT = "conflicting label"

Excluded = tuple[str, str, str]  # path, reason, detail


@dataclass(frozen=True)
class Found:
    """A raw folder as its names and tables describe it; no image has been opened yet.

    Attributes:
        rows: an image a row: ``path`` (relative to the raw folder, with /), ``label``, ``split_published``
            (train, val, test or None), ``group`` (patient or None), ``source`` (source set), and metadata columns.
        excluded: a file, or an entry of a table without its file, a row: ``path, reason, detail``.
        classes: class names in the study's order.
        notes: what a reader of the paper should know, a sentence each.
    """

    rows: pd.DataFrame
    excluded: pd.DataFrame
    classes: list[str]
    notes: list[str] = field(default_factory=list)


def found(
    rows: list[dict[str, object]],
    excluded: Iterable[Excluded],
    classes: list[str],
    notes: list[str],
    metadata: Iterable[str] = (),
) -> Found:
    """Put a source's lists into tables ordered by path; the columns are there also where there are no rows."""
    table = pd.DataFrame(rows, columns=[*COLUMNS, *metadata]).sort_values("path", ignore_index=True)
    for column in COLUMNS:
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    left_out = pd.DataFrame(list(excluded), columns=["path", "reason", "detail"])
    return Found(table, left_out.sort_values("path", ignore_index=True), classes, notes)


class Listing:
    """All files below a raw folder, by name only.

    Attributes:
        images: paths (relative, with /) whose name is that of an image, sorted.
        excluded: every other file, with the reason.
        base: the folder (relative, "." for the raw folder itself) below which the dataset's own folders are; wrapper
            folders that an archive put around them are passed over.
        folders: names of the folders in ``base``, hidden ones left out, sorted.
    """

    def __init__(self, root: Path) -> None:
        """List ``root``; raises MedscaleError when a folder in it cannot be read."""
        self.images: list[str] = []
        self.excluded: list[Excluded] = []
        directories: list[str] = []
        for path, fault in sorted(_walk(root, "", directories, set())):
            if fault is not None:
                self.excluded.append((path, *fault))
            elif _hidden(path):
                self.excluded.append((path, HIDDEN, "made by an operating system or tool"))
            elif not is_named_image(root / path):
                self.excluded.append((path, NO_IMAGE_NAME, basename(path)))
            else:
                self.images.append(path)
        shown = [PurePosixPath(d) for d in directories if not _hidden(f"{d}/x")]
        self._children: dict[str, list[str]] = {}
        for directory in sorted(shown):
            self._children.setdefault(str(directory.parent), []).append(directory.name)
        self._holds_images = {dirname(image) or "." for image in self.images}
        self.base = self._unwrap()
        self.folders = self._children.get(self.base, [])

    def below(self, folder: str) -> list[str]:
        """Names of the folders in ``base/folder``."""
        return self._children.get(str(PurePosixPath(self.base, folder)), [])

    def parts(self, path: str) -> tuple[str, ...]:
        """Folders and name of a path below ``base``; empty for a path outside it."""
        start = "" if self.base == "." else f"{self.base}/"
        return tuple(path.removeprefix(start).split("/")) if path.startswith(start) else ()

    def _unwrap(self) -> str:
        base = "."
        while base not in self._holds_images and len(names := self._children.get(base, [])) == 1:
            inner = str(PurePosixPath(base, names[0]))
            if inner in self._holds_images or inner not in self._children:
                break
            base = inner
        return base

    def summary(self) -> str:
        """What is there, for an error message."""
        if not self.images and not self.excluded and not self.folders:
            return "an empty folder"
        endings = Counter(
            PurePosixPath(p).suffix.lower() or "no ending" for p in [*self.images, *self._names()]
        )
        kinds = (
            ", ".join(f"{count} {ending}" for ending, count in endings.most_common(4)) or "no files"
        )
        folders = ", ".join(self.folders[:6]) + (" …" if len(self.folders) > 6 else "")
        return f"{kinds}; folders: {folders or 'none'}"

    def _names(self) -> Iterator[str]:
        return (path for path, _, _ in self.excluded)


def list_folder(root: Path | None, what: str) -> Listing:
    """List a source's raw folder.

    Args:
        root: the folder.
        what: what is expected in it and how to get it, for the message.

    Raises:
        MedscaleError: when it is missing, not a folder, or cannot be read.
    """
    if root is None:
        raise MedscaleError("the source has no path; set source.path in the configuration")
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise MedscaleError(f"the raw folder {root} {state}.\n  {what}")
    return Listing(root)


def read_table(path: Path, required: Iterable[str]) -> pd.DataFrame:
    """Read a CSV file as text; an empty cell becomes None.

    Raises:
        MedscaleError: when it cannot be read as UTF-8 CSV or lacks a required column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (
        OSError,
        ValueError,
    ) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        raise MedscaleError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from None
    table.columns = table.columns.str.strip()
    if missing := [name for name in required if name not in table.columns]:
        raise MedscaleError(
            f"{path}: no column {', '.join(missing)}; it has: {', '.join(table.columns)}"
        )
    return table.apply(lambda column: column.str.strip()).replace({"": None})


def same_name(path: str) -> str:
    """A path in the form in which tables and folders are compared: / between folders, accents composed (NFC)."""
    return unicodedata.normalize("NFC", re.sub(r"^(\./|/)+", "", path.replace("\\", "/")))


def _hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in dirname(path).split("/"))


def _walk(
    root: Path, below: str, directories: list[str], seen: set[tuple[int, int]]
) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yield each file's relative path and, where it cannot be an image, why; linked folders are followed once."""
    folder = root / below
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            yield below, (NOT_A_FILE, "a link to a folder that was listed already")
            return
        seen.add((status.st_dev, status.st_ino))
        if below:
            directories.append(below)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise MedscaleError(f"the folder {folder} cannot be read: {error.strerror}") from None
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if not entry.name.isprintable() and not _is_utf8(entry.name):
            yield os.fsencode(path).decode("utf-8", "backslashreplace"), (BAD_NAME, "rename it")
        elif entry.is_dir():
            yield from _walk(root, path, directories, seen)
        elif entry.is_file():
            yield path, None
        else:
            yield (
                path,
                (NOT_A_FILE, "a broken link" if entry.is_symlink() else "a device, pipe or socket"),
            )


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
