"""Listing of the files of a raw folder by name, and reading of a dataset's tables."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from posixpath import basename, dirname

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data.images import is_named_image
from medscale.data.inventory import (
    BAD_NAME,
    HIDDEN,
    NO_IMAGE_NAME,
    NOT_A_FILE,
    READ,
    UNREAD_FORMAT,
    Excluded,
)

MADE_BY_SYSTEMS = (
    "__MACOSX",
    "Thumbs.db",
    "thumbs.db",
    "desktop.ini",
    "@eaDir",
    "$RECYCLE.BIN",
    "DICOMDIR",
)
# Endings of images in formats that are not read: of phones, cameras, scanners of slides, volumes.
UNREAD = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".psd"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".svs", ".ndpi", ".mrxs"),
    *(".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".npy", ".npz"),
)


class Listing:
    """All files below a raw folder.

    Attributes:
        root: the raw folder.
        images: relative paths (with /) of files with the name of an image, sorted.
        excluded: all other files, with the reason.
        base: the relative path of the folder with the dataset's own folders ("." for the raw folder
            itself). Archives often unpack into wrapper folders, which are skipped.
        folders: names of the folders in ``base`` that are not hidden, sorted.
    """

    def __init__(self, root: Path) -> None:
        """List ``root``.

        Raises:
            MedscaleError: when a folder in it cannot be read.
        """
        self.root = root
        self.images: list[str] = []
        self.excluded: list[Excluded] = []
        directories: list[str] = []
        for path, fault in sorted(_walk(root, directories)):
            if fault is not None:
                self.excluded.append((path, *fault))
            elif is_hidden(path):
                self.excluded.append((path, HIDDEN, "made by an operating system or tool"))
            elif is_named_image(root / path):
                self.images.append(path)
            elif path.lower().endswith(UNREAD):
                self.excluded.append((path, UNREAD_FORMAT, "convert it to PNG, JPEG or DICOM"))
            else:
                self.excluded.append((path, NO_IMAGE_NAME, basename(path)))
        self._children: dict[str, list[str]] = {}
        for directory in sorted(PurePosixPath(d) for d in directories if not is_hidden(f"{d}/x")):
            self._children.setdefault(str(directory.parent), []).append(directory.name)
        self._image_folders = {dirname(image) or "." for image in self.images}
        self.base = self._unwrap()
        self.folders = self._children.get(self.base, [])

    def below(self, folder: str) -> list[str]:
        """Return the names of the folders in ``base/folder``."""
        return self._children.get(str(PurePosixPath(self.base, folder)), [])

    def parts(self, path: str) -> tuple[str, ...]:
        """Return the parts of a path below ``base``; none for a path outside it."""
        start = "" if self.base == "." else f"{self.base}/"
        return tuple(path.removeprefix(start).split("/")) if path.startswith(start) else ()

    def take_file(self, *names: str) -> Path | None:
        """Return the path of the first of ``names`` that exists in the raw folder or in ``base``.

        ``excluded`` then lists this file as a table that is read. None if no such file exists.
        """
        folders = (self.root, self.root / self.base)
        files = (folder / name for folder in folders for name in names)
        file = next((file for file in files if file.is_file()), None)
        return None if file is None else self.take(file)

    def take(self, file: Path) -> Path:
        """Return a table of the dataset, which ``excluded`` lists as read from now on."""
        self.excluded = [
            (path, READ, "not an image") if self.root / path == file else (path, reason, detail)
            for path, reason, detail in self.excluded
        ]
        return file

    def summary(self) -> str:
        """Return a description of the contents, for error messages."""
        if not self.images and not self.excluded and not self.folders:
            return "an empty folder"
        paths = [*self.images, *(path for path, _, _ in self.excluded)]
        endings = Counter(PurePosixPath(path).suffix.lower() or "no ending" for path in paths)
        files = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(4))
        folders = ", ".join(self.folders[:6]) + (" …" if len(self.folders) > 6 else "")
        return f"{files or 'no files'}; folders: {folders or 'none'}"

    def incomplete(self, dataset: str, expected: str, *faults: str) -> MedscaleError:
        """Return the error for a raw folder that lacks a part of a dataset."""
        return MedscaleError(
            f"{self.root} holds no complete {dataset}.\n  {expected}\n  Found: "
            + "; ".join([*faults, self.summary()])
        )

    def _unwrap(self) -> str:
        base = "."
        while base not in self._image_folders and len(names := self._children.get(base, [])) == 1:
            inner = str(PurePosixPath(base, names[0]))
            if inner in self._image_folders or inner not in self._children:
                break
            base = inner
        return base


def list_folder(root: Path | None, expected: str) -> Listing:
    """List a raw folder.

    Args:
        root: the folder.
        expected: expected contents and their source, for messages.

    Raises:
        MedscaleError: when it is missing, is not a folder, or cannot be read.
    """
    if root is None:
        raise MedscaleError("the source has no path; set source.path in the configuration")
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise MedscaleError(f"the raw folder {root} {state}.\n  {expected}")
    return Listing(root)


def read_table(path: Path, required: Iterable[str]) -> pd.DataFrame:
    """Read a CSV file as text in Unicode's composed form (NFC); an empty cell becomes None.

    Values are separated by commas, semicolons (as spreadsheets write in countries with a decimal
    comma) or tabs, whichever divides the first two lines into the most values.

    Raises:
        MedscaleError: when it is not a CSV file in UTF-8, lacks a required column, has a column
            twice, or has a line with more values than columns.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator_of(path), strict=True)
            # Not before: U+037E becomes a semicolon, which separates cells.
            lines = [
                [unicodedata.normalize("NFC", cell) for cell in line] for line in reader if line
            ]
    except UnicodeDecodeError as error:
        raise MedscaleError(
            f"{path} cannot be read as a CSV file in UTF-8: {error}; save it again as CSV UTF-8"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise MedscaleError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from None
    if not lines:
        raise MedscaleError(f"{path} cannot be read as a CSV file in UTF-8: it is empty")
    table = _with_header(path, lines)
    if missing := [name for name in required if name not in table.columns]:
        raise MedscaleError(
            f"{path}: no column {', '.join(missing)}; it has: {', '.join(table.columns)}"
        )
    stripped = table.apply(lambda column: column.str.strip())
    return stripped.astype(object).where(stripped != "", None)


def separator_of(path: Path) -> str:
    """Return the mark that divides the first two lines of a CSV file into the most values."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [*islice(file, 2)]
    return max(",;\t", key=lambda mark: min(map(len, csv.reader(lines, delimiter=mark)), default=0))


def _with_header(path: Path, lines: list[list[str]]) -> pd.DataFrame:
    """Return a table whose first line names the columns; values after the last must be empty.

    Lines often end in a comma, which pandas' reader turns into a further column or row names.
    """
    header = [name.strip() for name in lines[0]]
    while header and not header[-1]:
        header.pop()
    width = len(header)
    for number, line in enumerate(lines[1:], start=2):
        if any(cell.strip() for cell in line[width:]):
            raise MedscaleError(
                f"{path} cannot be read as a CSV file in UTF-8: its row {number} has more values "
                f"than the {width} columns of the first ({','.join(line)}); a value that contains "
                "a comma stands in quotation marks"
            )
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise MedscaleError(f"{path}: the column {', '.join(repeated)} occurs twice; rename one")
    names = [name or f"Unnamed: {place}" for place, name in enumerate(header)]
    rows = [(line + [""] * width)[:width] for line in lines[1:]]
    return pd.DataFrame(rows, columns=names, dtype=str)


def normalized_path(path: str) -> str:
    """Return a path in a form in which tables and folders can be compared: with /, in NFC."""
    return unicodedata.normalize("NFC", re.sub(r"^(\./|/)+", "", path.replace("\\", "/")))


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, was made by an operating system or tool."""
    return any(part.startswith(".") or part in MADE_BY_SYSTEMS for part in path.split("/"))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a folder; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(root: Path, directories: list[str]) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yield each file's relative path, with reason and detail if it cannot be an image.

    Links to folders are followed after all other folders, so that a folder keeps its own name where
    a link leads to it. No folder is listed twice, which also stops links that form a loop.

    Args:
        root: the raw folder.
        directories: list to which the relative path of each folder is appended.
    """
    visited: set[tuple[int, int]] = set()  # device and inode of each folder
    folders, links = [""], list[str]()
    while folders or links:
        below = folders.pop() if folders else links.pop(0)
        try:
            status = (root / below).stat()
            if (status.st_dev, status.st_ino) in visited:
                yield below, (NOT_A_FILE, "a link to a folder that is listed under its own name")
                continue
            visited.add((status.st_dev, status.st_ino))
            if below:
                directories.append(below)
            with os.scandir(root / below) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise MedscaleError(
                f"the folder {root / below} cannot be read: {error.strerror}"
            ) from None
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if not entry.name.isprintable() and re.search("[\udc80-\udcff]", entry.name):
                yield os.fsencode(path).decode("utf-8", "backslashreplace"), (BAD_NAME, "rename it")
            elif is_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            elif os.path.isfile(entry):
                yield path, None
            else:
                detail = "a broken link" if entry.is_symlink() else "a device, pipe or socket"
                yield path, (NOT_A_FILE, detail)
